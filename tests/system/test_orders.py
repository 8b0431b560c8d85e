"""Important data by the command line: a request waits for the regulator's signature; a hold stops everything."""

from __future__ import annotations

import re

from commandline import EXAMPLES, Sovchain

SHARED = EXAMPLES / "data" / "sme-tax-credit.csv"


def test_a_request_waits_for_a_signature_and_a_hold_stops_everything(network: Sovchain) -> None:
    on = ("--channel", "finance")
    share = ("share", SHARED, *on, "--as", "Government", "--purpose", "credit-assessment", "--class", "important")
    dataset = network.ok(*share)["dataset"]["id"]
    ask = ("request", dataset, *on, "--as", "Finance", "--purpose", "credit-assessment")
    asked = network.run(*ask)
    assert asked.code == 1, asked.out
    waiting = re.search(r"[0-9a-f]{64}", " ".join(asked.err.split()))
    assert "waits for a co-signature" in asked.err
    assert waiting is not None, asked.err
    refused = network.run("order", "cosign", waiting[0], *on)
    assert refused.code == 1
    assert "bound to no person" in refused.err
    for number, name in enumerate(("Finance", "Supervisor")):
        me = network.ok("order", "whoami", *on, "--as", name)
        network.ok("order", "bind", me["identity"], f"{number}a" * 32, *on, "--as", name)
    assert network.ok("order", "cosign", waiting[0], *on)["record"]["who"] == "regulator"
    assert network.ok("order", "decide", waiting[0], *on, "--as", "Finance")["record"]["decision"] == "permit"
    held = network.ok("order", "hold", dataset, *on, "--reason", "case 12")["record"]["id"]
    denied = network.run(*ask, "--json")
    assert (denied.code, denied.json["code"]) == (4, "E_HELD")
    network.ok("order", "lift", dataset, held, *on, "--reason", "case closed")

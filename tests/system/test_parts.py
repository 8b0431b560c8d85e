"""Some columns and rows of a file are asked for, granted, delivered and checked by a stranger, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from commandline import Sovchain

CSV = "enterprise,district,tax\nNoodles,Nanming,120\nTools,Yunyan,340\nTea,Nanming,55\n"
CHANNEL = ("--channel", "finance")


def test_a_part_is_delivered_and_proves_itself(network: Sovchain, tmp_path: Path) -> None:
    file, part, proof = (tmp_path / name for name in ("all.csv", "part.csv", "part.json"))
    file.write_text(CSV)
    dataset = network.share(file)["dataset"]["id"]
    asked = ("--field", "district", "--field", "tax", "--where", "district=Nanming")
    finance = (*CHANNEL, "--as", "Finance")
    answer = network.ok("request", dataset, *finance, "--purpose", "credit-assessment", *asked)
    assert (answer["decision"], answer["fields"]) == ("permit", ["district", "tax"])
    network.ok("release", answer["request"], *CHANNEL, "--as", "Government")
    opened = network.ok("open", answer["request"], *finance, "--output", part, "--proof", proof)
    assert opened["acknowledged"]
    assert part.read_text() == "district,tax\nNanming,120\nNanming,55\n"
    checked = network.ok("audit", "projection", proof, *CHANNEL)
    assert (checked["ok"], checked["grantee"], checked["rows"], checked["rows_of_the_whole"]) == (
        True,
        "FinanceMSP",
        2,
        3,
    )

    document = json.loads(proof.read_text())
    document["columns"][1]["values"][0] = "999"
    proof.write_text(json.dumps(document, separators=(",", ":"), sort_keys=True))
    refused = network.run("audit", "projection", proof, *CHANNEL, "--json")
    assert (refused.code, "do not lead to the root" in refused.json["findings"][0]) == (5, True)

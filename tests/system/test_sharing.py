"""A part of a file is granted and checked by a stranger; its use is reported; a person complains and takes the data along."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commandline import Sovchain
from toldinprivate import holders, tell

from sovchain.sovereign import IntegrityError, check_export

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


async def test_what_is_told_in_private_reaches_whom_it_is_for_and_nobody_else(
    network: Sovchain, tmp_path: Path
) -> None:
    """Reports, complaints, answers and the key of a sealed payload: the running network's files are searched for them."""
    file = tmp_path / "all.csv"
    file.write_text(CSV)
    dataset = network.share(file)["dataset"]["id"]
    told = await tell(network.directory, tmp_path, dataset)
    found = check_export(told.exported)
    assert (found.signer.partition(",")[0], [one.state for one in found.rights]) == ("FinanceMSP", ["fulfilled"])
    for altered in (told.exported.replace(b'"fulfilled"', b'"refused"'), told.exported[:-3] + b'x"}', b"{}"):
        with pytest.raises(IntegrityError):
            check_export(altered)
    with pytest.raises(IntegrityError, match="nobody that you trust"):
        check_export(told.exported, [told.authority])
    assert not any(form in told.exported for form in told.forms)
    private = {
        path.as_posix().removesuffix("-wal").removesuffix("-shm") for path in holders(network.directory, told.forms)
    }
    assert private == {f"ledger/finance/private/{msp}.sqlite" for msp in ("GovernmentMSP", "FinanceMSP")}
    assert holders(network.directory, (dataset.encode(),)), "the search finds what is public"

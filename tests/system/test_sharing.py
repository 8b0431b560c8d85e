"""A part of a file is granted and checked by a stranger; its use is reported; a person complains and takes the data along."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path

import pytest
from commandline import Sovchain

from sovchain.contracts.core.calendar import Calendar
from sovchain.network import Network
from sovchain.sovereign import (
    Authority,
    GrantDesk,
    IntegrityError,
    PersonalDataDesk,
    RightsDesk,
    Sovereign,
    check_export,
    pseudonym,
)

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


async def enact_calendars(net: Network) -> None:
    """Calendars of this year and the next, without holidays: whenever this runs, a period can be counted."""
    for year in (datetime.now(UTC).year, datetime.now(UTC).year + 1):
        calendar, ballot = Calendar(jurisdiction="CN", year=year, source="for a test", holidays=()), ""
        for name in ("Government", "Supervisor", "Finance"):
            async with net.connect(name, "Admin") as gateway:
                office = Sovereign(gateway.network("finance"))
                ballot = ballot or (await office.propose_calendar(calendar)).ballot
                await office.vote(ballot)


async def test_reports_and_complaints_reach_whom_they_are_for_and_nobody_else(
    network: Sovchain, tmp_path: Path
) -> None:
    """The same wrappers that the command line has, on a running network; its files are searched for what was told in private."""
    marker = f"MARKER{secrets.token_hex(8)}"
    file = tmp_path / "all.csv"
    file.write_text(CSV)
    dataset = network.share(file)["dataset"]["id"]
    subject = pseudonym(secrets.token_bytes(32), "credit-assessment", "520102199001011234")
    async with (
        Network.attach(network.directory) as net,
        net.connect("Government", "User1") as one,
        net.connect("Finance", "User1") as two,
    ):
        await enact_calendars(net)
        owner, grantee = one.network("finance"), two.network("finance")
        request = (await Sovereign(grantee).request(dataset, "credit-assessment")).request
        await Sovereign(owner).release(request)
        report = f"{marker} used for one loan".encode()
        await GrantDesk(grantee).report(request, report)
        assert await GrantDesk(owner).read_report(request) == report
        await GrantDesk(owner).revoke(request, "the contract ended")
        assert "E_REVOKED" in (await GrantDesk(grantee).state(request)).problems[0]

        me = await Authority(grantee).whoami()
        await PersonalDataDesk(owner).open_wallet(subject, me.msp_id, me.identity)
        complaint = f"Zhang San ({marker}) complains".encode()
        person, handler = RightsDesk(grantee), RightsDesk(owner)
        filed = (await person.file(subject, "complaint", "GovernmentMSP", complaint)).record
        assert await handler.text(subject, filed.id) == complaint
        answer = f"{marker} was right".encode()
        await handler.answer(subject, filed.id, "fulfilled", answer)
        assert await person.answer_text(subject, filed.id) == answer
        exported = await person.export(subject)
        authority = net.identity("Finance", "User1").certificate_pem

    found = check_export(exported)
    assert (found.signer.partition(",")[0], [one.state for one in found.rights]) == ("FinanceMSP", ["fulfilled"])
    for altered in (exported.replace(b'"fulfilled"', b'"refused"'), exported[:-3] + b'x"}', b"{}"):
        with pytest.raises(IntegrityError):
            check_export(altered)
    with pytest.raises(IntegrityError, match="nobody that you trust"):
        check_export(exported, [authority])

    holders = {
        path.relative_to(network.directory).as_posix().removesuffix("-wal").removesuffix("-shm")
        for path in network.directory.rglob("*")
        if path.is_file() and marker.encode() in path.read_bytes()
    }
    assert holders == {f"ledger/finance/private/{msp}.sqlite" for msp in ("GovernmentMSP", "FinanceMSP")}
    assert marker.encode() not in exported

"""Everything that organisations and persons tell each other in private on a running network, with a planted marker in each of it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sovchain.contracts.core.calendar import Calendar
from sovchain.network import Network
from sovchain.sovereign import (
    Authority,
    FolderStore,
    GrantDesk,
    PersonalDataDesk,
    RightsDesk,
    SealedData,
    Sovereign,
    pseudonym,
)
from sovchain.sovereign.sealedfile import Opener


@dataclass(frozen=True)
class Told:
    """What was told.

    Attributes:
        forms: bytes that may lie in the two parties' private stores only: the marker, and the key of a sealed payload.
        exported: the person's signed export.
        authority: a certificate that did not issue the signer's.
    """

    forms: tuple[bytes, ...]
    exported: bytes
    authority: bytes


async def enact_calendars(net: Network) -> None:
    """Calendars of this year and the next, without holidays: whenever this runs, a period can be counted."""
    for year in (datetime.now(UTC).year, datetime.now(UTC).year + 1):
        calendar, ballot = Calendar(jurisdiction="CN", year=year, source="for a test", holidays=()), ""
        for name in ("Government", "Supervisor", "Finance"):
            async with net.connect(name, "Admin") as gateway:
                office = Sovereign(gateway.network("finance"))
                if not ballot:
                    proposed = await office.propose_calendar(calendar)
                    ballot = proposed.ballot
                await office.reached(proposed.committed)
                await office.vote(ballot)


async def tell(directory: Path, folder: Path, dataset: str) -> Told:
    """On a founded network: Government shares and answers, Finance reports, complains and takes its data along."""
    marker = f"MARKER{secrets.token_hex(8)}"
    subject = pseudonym(secrets.token_bytes(32), "credit-assessment", "520102199001011234")
    async with (
        Network.attach(directory) as net,
        net.connect("Government", "User1") as one,
        net.connect("Finance", "User1") as two,
    ):
        await enact_calendars(net)
        owner, grantee = one.network("finance"), two.network("finance")
        request = await granted(Sovereign(owner), Sovereign(grantee), dataset)
        report = f"{marker} used for one loan".encode()
        reported = await GrantDesk(grantee).report(request, report)
        await GrantDesk(owner).reached(reported.committed)
        assert await GrantDesk(owner).read_report(request) == report
        revoked = await GrantDesk(owner).revoke(request, "the contract ended")
        await GrantDesk(grantee).reached(revoked.committed)
        assert "E_REVOKED" in (await GrantDesk(grantee).state(request)).problems[0]
        key = await sealed(Sovereign(owner), Sovereign(grantee), folder, marker)

        me = await Authority(grantee).whoami()
        opened = await PersonalDataDesk(owner).open_wallet(subject, me.msp_id, me.identity)
        person, handler = RightsDesk(grantee), RightsDesk(owner)
        await person.reached(opened.committed)
        complaint = f"Zhang San ({marker}) complains".encode()
        filed = await person.file(subject, "complaint", "GovernmentMSP", complaint)
        await handler.reached(filed.committed)
        assert await handler.text(subject, filed.record.id) == complaint
        answer = f"{marker} was right".encode()
        answered = await handler.answer(subject, filed.record.id, "fulfilled", answer)
        await person.reached(answered.committed)
        assert await person.answer_text(subject, filed.record.id) == answer
        exported = await person.export(subject)
        authority = net.identity("Finance", "User1").certificate_pem
    return Told((marker.encode(), marker.encode().hex().encode(), key, key.hex().encode()), exported, authority)


async def granted(owner: Sovereign, grantee: Sovereign, dataset: str) -> str:
    """A request of the grantee's that is permitted and delivered."""
    answer = await grantee.request(dataset, "credit-assessment")
    assert answer.permitted, answer.reasons
    await owner.reached(answer.decided)
    released = await owner.release(answer.request)
    await grantee.reached(released.committed)
    return answer.request


async def sealed(owner: Sovereign, grantee: Sovereign, folder: Path, marker: str) -> bytes:
    """Share a sealed payload; its key. The store has neither key nor payload."""
    source, target, store = folder / "scan.pdf", folder / "fetched.pdf", folder / "store"
    source.write_text(f"%PDF {marker}")
    shared = await SealedData(owner, FolderStore(store)).seal(source, purposes=["credit-assessment"])
    await grantee.reached(shared.published)
    request = await granted(owner, grantee, shared.id)
    opener = Opener.decode((await grantee.opener(request))[0])
    await SealedData(grantee, FolderStore(store)).fetch(request, target)
    assert target.read_bytes() == source.read_bytes()
    kept = b"".join(path.read_bytes() for path in store.rglob("*") if path.is_file())
    assert marker.encode() not in kept
    assert bytes.fromhex(opener.key) not in kept
    return bytes.fromhex(opener.key)


def holders(directory: Path, forms: tuple[bytes, ...]) -> set[Path]:
    """The files below a network's directory that hold one of the forms."""
    return {
        path.relative_to(directory)
        for path in directory.rglob("*")
        if path.is_file() and "wal" not in path.parts and any(form in path.read_bytes() for form in forms)
    }

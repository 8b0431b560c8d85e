"""Evidence of one decision: a file by which a court checks it with nothing else at hand.

The file is a ZIP archive of

    statement.json   what is shown: channel, request, receipt, its block, the hashes of the first and the last block
    blocks           the channel from its first block to the receipt's, each behind its length as a varint
    request.json     the request as it was on file
    receipt.json     the receipt as it was committed
    laws/            the text of each law that the decision was made under, as LAW@VERSION.cedar
    signer           who vouches for the selection: a serialised identity (msp.SerializedIdentity)
    signature        his signature over statement.json

Blocks vouch for themselves: whoever checks replays them all, and recomputes the decision from the law, the registry and the
request that were committed before it. The blocks hold the orderers' signatures, each transaction with its endorsements, and the
organisations' root certificates. Members are stored, not compressed, in the order above and without dates, so that equal
members are equal bytes: a file with any other byte in it is found out. Two things cannot be proven by the file and are named on checking: that the first
block is the channel's (compare its hash with one from elsewhere), and that no later block changed anything since.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sovchain.audit.report import ChannelReport, Finding, ReceiptCheck
from sovchain.audit.shown import DecisionShown
from sovchain.audit.verify import Progress, verify_channel
from sovchain.protocol.blocks import iter_block_file, parse_block, write_block_file
from sovchain.protocol.canonical import canonical_json, parse_json
from sovchain.protocol.channelconfig import ChannelBundle
from sovchain.protocol.errors import InvalidIdentity, ProtocolError

EVIDENCE_MAX_BYTES: Final = 4 * 1024 * 1024 * 1024
"""Largest member of an archive that is read."""
FORMAT: Final = 1
_PARTS: Final = ("statement.json", "blocks", "signer", "signature", "request.json", "receipt.json")
_LAW: Final = re.compile(r"laws/[A-Z0-9][A-Z0-9.-]{1,39}@[0-9]{1,6}\.cedar", re.ASCII)
_PROVING: Final = _PARTS[:4]
MEMBERS_MAX: Final = 1000
"""Most members of an archive that is read."""


class EvidenceError(Exception):
    """A file is no evidence, or there is nothing to give evidence of: `what`, `why`, and what to do (`remedy`)."""

    def __init__(self, what: str, why: str, remedy: str) -> None:
        super().__init__(f"{what}: {why}; {remedy}")
        self.what = what
        self.why = why
        self.remedy = remedy


class Signer(Protocol):
    """Who vouches: his serialised identity, and his signature over a message as Fabric makes it."""

    @property
    def creator(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True)
class Judgement:
    """What a check of evidence came to.

    Attributes:
        statement: what the file states.
        report: the audit of its blocks.
        receipt: the decision, recomputed; None when the blocks do not hold it.
        signer: MSP id and subject of who vouches.
        findings: what is wrong, in plain words; none if everything holds.
    """

    statement: dict[str, Any]
    report: ChannelReport
    receipt: ReceiptCheck | None
    signer: str
    findings: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return not self.findings


def make_evidence(
    blocks: Iterable[bytes], request: str, signer: Signer, *, progress: Progress | None = None
) -> tuple[bytes, Judgement]:
    """Make the evidence of the decision on a request from a channel's blocks, and check it as its reader will.

    Equal blocks and an equal signature give equal bytes. Raises EvidenceError when the blocks hold no such decision, or
    are not in order.
    """
    kept: list[bytes] = []
    report = verify_channel(_noting(blocks, kept), progress=progress)
    if not report.ok:
        raise _not_in_order(report.findings[0])
    found = next((one for one in report.receipts if one.request == request), None)
    if found is None:
        raise EvidenceError(
            "there is no such decision",
            f"no block of {report.channel} holds a receipt on it",
            "check request and channel",
        )
    shown = kept[: found.block + 1]
    decision = DecisionShown(request)
    part = verify_channel(shown, witness=decision.witness)
    statement = canonical_json(_statement(part, found))
    members = {
        "statement.json": statement,
        "blocks": write_block_file(shown),
        "signer": signer.creator,
        "signature": signer.sign(statement),
        **decision.members,
    }
    archive = _archive(members)
    return archive, check_evidence(archive)


def check_evidence(archive: bytes, *, genesis_hash: str | None = None, progress: Progress | None = None) -> Judgement:
    """Check evidence with nothing but itself.

    `genesis_hash` is the hex header hash of the channel's first block, if the reader has it from elsewhere. Raises
    EvidenceError for a file that is no evidence; everything else that is wrong is a finding.
    """
    members = _members(archive)
    try:
        statement = parse_json(members["statement.json"])
    except ProtocolError as error:
        raise _no_evidence(f"its statement cannot be read ({error})") from None
    if not isinstance(statement, dict) or statement.get("format") != FORMAT:
        raise _no_evidence("its statement has another format")
    decision = DecisionShown(str(statement.get("request")))
    report = verify_channel(
        iter_block_file(members["blocks"]), genesis_hash=genesis_hash, progress=progress, witness=decision.witness
    )
    findings = [str(finding) for finding in report.findings]
    if members["statement.json"] != canonical_json(statement):
        findings.append("the statement is not in canonical form")
    if _archive(members) != archive:
        findings.append("the file has bytes that are none of its members'")
    shown = {name: content for name, content in members.items() if name not in _PROVING}
    findings += [
        f"{name} is not what the blocks hold"
        for name in sorted(shown.keys() | decision.members.keys())
        if shown.get(name) != decision.members.get(name)
    ]
    receipt = next((one for one in report.receipts if one.request == statement.get("request")), None)
    if receipt is None:
        findings.append("the blocks hold no decision on the request that is stated")
    elif statement != _statement(report, receipt):
        findings.append("the statement is not what follows from the blocks")
    signer, fault = _signer(members, report)
    return Judgement(statement, report, receipt, signer, (*findings, *([fault] if fault else [])))


def _statement(report: ChannelReport, receipt: ReceiptCheck) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "channel": report.channel,
        "genesis_hash": report.genesis_hash,
        "head_hash": report.head_hash,
        "blocks": report.blocks,
        "request": receipt.request,
        "receipt": receipt.receipt,
        "decision": receipt.decision,
        "reasons": list(receipt.reasons),
        "block": receipt.block,
        "transaction": receipt.transaction_id,
    }


def _signer(members: dict[str, bytes], report: ChannelReport) -> tuple[str, str]:
    """Who vouches, and what is wrong with that; he must be a member of the channel as its last configuration has it."""
    try:
        bundle = _last_bundle(members["blocks"])
        identity = bundle.msps.deserialize(members["signer"])
        bundle.msps.validate(identity)
    except (InvalidIdentity, ProtocolError, StopIteration) as error:
        return "", f"the signer is no member of the channel {report.channel}: {error}"
    name = f"{identity.msp_id}, {identity.certificate.subject.rfc4514_string()}"
    if not identity.verify(members["statement.json"], members["signature"]):
        return name, f"the signature of {name} is not good"
    return name, ""


def _last_bundle(blocks: bytes) -> ChannelBundle:
    bundle = None
    for raw in iter_block_file(blocks):
        try:
            bundle = ChannelBundle.from_block(parse_block(raw))
        except ProtocolError:
            continue  # a block of transactions
    if bundle is None:
        raise ProtocolError("no block holds a configuration")
    return bundle


def _noting(blocks: Iterable[bytes], kept: list[bytes]) -> Iterable[bytes]:
    for block in blocks:
        kept.append(block)
        yield block


def _archive(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in (*_PARTS, *sorted(members.keys() - set(_PARTS))):
            if name in members:
                # The default date would make each archive another one; compression may differ between machines.
                info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                info.create_system = 3
                archive.writestr(info, members[name], zipfile.ZIP_STORED)
    return buffer.getvalue()


def _members(archive: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            sizes = {info.filename: info.file_size for info in opened.infolist()[: MEMBERS_MAX + 1]}
            laws = sizes.keys() - set(_PARTS)
            known = len(sizes) - len(laws) == len(_PARTS) and all(_LAW.fullmatch(name) for name in laws)
            if not known or not len(sizes) == len(opened.infolist()) <= MEMBERS_MAX:
                raise _no_evidence(f"it holds {', '.join(sorted(sizes)) or 'nothing'}")
            if any(info.compress_type != zipfile.ZIP_STORED for info in opened.infolist()):
                raise _no_evidence("a part of it is compressed")
            if max(sizes.values()) > EVIDENCE_MAX_BYTES:
                raise _no_evidence(f"a part of it is longer than {EVIDENCE_MAX_BYTES} bytes")
            return {name: opened.read(name) for name in sizes}
    except (
        zipfile.BadZipFile,
        EOFError,
        NotImplementedError,
        RuntimeError,
        ValueError,
        OSError,
        struct.error,
    ) as error:
        # What an altered directory of an archive makes of its reader: offsets before the file, names that are none.
        raise _no_evidence(f"it is no archive that can be read ({error})") from None


def _no_evidence(why: str) -> EvidenceError:
    return EvidenceError("this is no evidence", why, "ask for the file again")


def _not_in_order(finding: Finding) -> EvidenceError:
    return EvidenceError("the ledger is not in order", str(finding), "audit another organisation's copy of it")

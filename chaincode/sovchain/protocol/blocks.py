"""Blocks: hashes, metadata slots, orderer signatures, framing, strictness.

General layout: hashes and construction; the five metadata slots; signing and verifying; strictness for auditors;
framing of block files.
Mirrors protoutil/blockutils.go and orderer/common/multichannel/blockwriter.go.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, BinaryIO

from fabric_protos.common import common_pb2, configuration_pb2
from fabric_protos.msp import identities_pb2
from google.protobuf.message import DecodeError, Message

from sovchain.protocol.endorsement import usable_identity, usable_signatures
from sovchain.protocol.errors import MalformedError, ProtocolError
from sovchain.protocol.policies import SignedData
from sovchain.protocol.strict import has_unknown_fields
from sovchain.protocol.varint import encode_varint

if TYPE_CHECKING:
    from sovchain.protocol.channelconfig import ChannelBundle

__all__ = [
    "BLOCK_VALIDATION_POLICY",
    "METADATA_SLOTS",
    "BlockError",
    "block_commit_hash",
    "canonical_faults",
    "check_data_hash",
    "data_hash",
    "frame_block",
    "header_bytes",
    "header_hash",
    "is_canonical",
    "is_config_block",
    "iter_block_file",
    "last_config_index",
    "new_block",
    "orderer_metadata",
    "parse_block",
    "set_commit_hash",
    "set_transactions_filter",
    "sign_block",
    "signature_message",
    "signed_block_data",
    "transactions_filter",
    "verify_block_signature",
    "write_block_file",
]

METADATA_SLOTS = 5
"""SIGNATURES, LAST_CONFIG, TRANSACTIONS_FILTER, ORDERER, COMMIT_HASH."""

BLOCK_VALIDATION_POLICY = "/Channel/Orderer/BlockValidation"

_INDEX = common_pb2.BlockMetadataIndex
_MAX_SIGNATURES = 1000


class BlockError(ProtocolError):
    """A block is not what it claims to be: hash, signature or policy fails."""


# --- hashes and construction -----------------------------------------------------------------------------------------


def header_bytes(header: common_pb2.BlockHeader) -> bytes:
    """Return the DER form of a block header: SEQUENCE {number, previous_hash, data_hash}."""
    number = header.number
    # One byte more than needed at times: a DER INTEGER is signed, so that a leading 1 bit needs a zero before it.
    digits = number.to_bytes(number.bit_length() // 8 + 1, "big")
    return _der(0x30, _der(0x02, digits) + _der(0x04, header.previous_hash) + _der(0x04, header.data_hash))


def header_hash(header: common_pb2.BlockHeader) -> bytes:
    """Return the SHA-256 of the DER form: the hash that the next block carries as previous_hash."""
    return sha256(header_bytes(header)).digest()


def data_hash(envelopes: Iterable[bytes]) -> bytes:
    """Return the SHA-256 of the concatenated envelopes (protoutil ComputeBlockDataHash)."""
    hasher = sha256()
    for envelope in envelopes:
        hasher.update(envelope)
    return hasher.digest()


def new_block(number: int, previous_hash: bytes, envelopes: Sequence[bytes]) -> common_pb2.Block:
    """Return a block with its data hash and five empty metadata slots.

    Args:
        number: Height of the chain before this block.
        previous_hash: :func:`header_hash` of the block before; empty for block 0.
        envelopes: The marshalled envelopes, in order.
    """
    return common_pb2.Block(
        header=common_pb2.BlockHeader(number=number, previous_hash=previous_hash, data_hash=data_hash(envelopes)),
        data=common_pb2.BlockData(data=envelopes),
        metadata=common_pb2.BlockMetadata(metadata=[b""] * METADATA_SLOTS),
    )


def parse_block(block_bytes: bytes) -> common_pb2.Block:
    """Parse a block and check that it has a header, data and metadata. Raises MalformedError."""
    try:
        block = common_pb2.Block.FromString(block_bytes)
    except DecodeError as fault:
        raise MalformedError(f"block cannot be decoded: {fault}") from fault
    for part in ("header", "data", "metadata"):
        if not block.HasField(part):
            raise MalformedError(f"block has no {part}")
    return block


def check_data_hash(block: common_pb2.Block) -> None:
    """Check that the header's data hash is the hash of the data. Raises BlockError."""
    if data_hash(block.data.data) != block.header.data_hash:
        raise BlockError(f"data of block {block.header.number} does not have the hash that its header states")


def is_config_block(block: common_pb2.Block) -> bool:
    """Whether the block carries a channel configuration: its only transaction is of type CONFIG."""
    if len(block.data.data) != 1:
        return False
    try:
        envelope = common_pb2.Envelope.FromString(block.data.data[0])
        payload = common_pb2.Payload.FromString(envelope.payload)
        return common_pb2.ChannelHeader.FromString(payload.header.channel_header).type == common_pb2.CONFIG
    except DecodeError:
        return False


# --- metadata slots --------------------------------------------------------------------------------------------------


def orderer_metadata(last_config: int, consenter_metadata: bytes = b"") -> bytes:
    """Return the value of the SIGNATURES slot that ordering nodes sign: OrdererBlockMetadata.

    Args:
        last_config: Number of the last config block; of this one, if it is itself a config block.
        consenter_metadata: What the consensus keeps about its own position; opaque here.
    """
    return common_pb2.OrdererBlockMetadata(
        last_config=common_pb2.LastConfig(index=last_config),
        consenter_metadata=common_pb2.Metadata(value=consenter_metadata).SerializeToString(),
    ).SerializeToString()


def last_config_index(block: common_pb2.Block) -> int:
    """Return the number of the last config block, from the signed slot, else from LAST_CONFIG.

    Raises MalformedError.
    """
    try:
        signatures = common_pb2.Metadata.FromString(_slot(block, _INDEX.SIGNATURES))
        if signatures.value:
            return common_pb2.OrdererBlockMetadata.FromString(signatures.value).last_config.index
        last_config = common_pb2.Metadata.FromString(_slot(block, _INDEX.LAST_CONFIG))
        return common_pb2.LastConfig.FromString(last_config.value).index
    except DecodeError as fault:
        raise MalformedError(f"last config index of block {block.header.number} cannot be decoded") from fault


def transactions_filter(block: common_pb2.Block) -> bytes:
    """Return the validation codes that a peer recorded, one byte per transaction; empty if there are none."""
    return _slot(block, _INDEX.TRANSACTIONS_FILTER)


def set_transactions_filter(block: common_pb2.Block, codes: bytes) -> None:
    """Fill the TRANSACTIONS_FILTER slot in place."""
    _set_slot(block, _INDEX.TRANSACTIONS_FILTER, codes)


def block_commit_hash(block: common_pb2.Block) -> bytes:
    """Return the commit hash that a peer recorded; empty if there is none. Raises MalformedError."""
    try:
        return common_pb2.Metadata.FromString(_slot(block, _INDEX.COMMIT_HASH)).value
    except DecodeError as fault:
        raise MalformedError(f"commit hash of block {block.header.number} cannot be decoded") from fault


def set_commit_hash(block: common_pb2.Block, commit_hash: bytes) -> None:
    """Fill the COMMIT_HASH slot in place; an empty hash leaves the slot empty."""
    encoded = common_pb2.Metadata(value=commit_hash).SerializeToString() if commit_hash else b""
    _set_slot(block, _INDEX.COMMIT_HASH, encoded)


def _slot(block: common_pb2.Block, index: int) -> bytes:
    slots = block.metadata.metadata
    return slots[index] if index < len(slots) else b""


def _set_slot(block: common_pb2.Block, index: int, value: bytes) -> None:
    slots = block.metadata.metadata
    while len(slots) < METADATA_SLOTS:
        slots.append(b"")
    slots[index] = value


# --- signatures ------------------------------------------------------------------------------------------------------


def signature_message(value: bytes, signature_header: bytes, header: common_pb2.BlockHeader) -> bytes:
    """Return the bytes that an ordering node signs: slot value, its signature header, DER of the block header."""
    return value + signature_header + header_bytes(header)


def sign_block(
    block: common_pb2.Block,
    *,
    last_config: int,
    creator: bytes,
    nonce: bytes,
    sign: Callable[[bytes], bytes],
    consenter_metadata: bytes = b"",
) -> None:
    """Fill the SIGNATURES and LAST_CONFIG slots in place, as the orderer's block writer does (one signature).

    Args:
        block: A complete block; its header is signed.
        last_config: See :func:`orderer_metadata`.
        creator: Serialised identity of the ordering node.
        nonce: Random bytes for the signature header.
        sign: Signs a message with the ordering node's key.
        consenter_metadata: See :func:`orderer_metadata`.
    """
    value = orderer_metadata(last_config, consenter_metadata)
    signature_header = common_pb2.SignatureHeader(creator=creator, nonce=nonce).SerializeToString()
    signature = common_pb2.MetadataSignature(
        signature_header=signature_header, signature=sign(signature_message(value, signature_header, block.header))
    )
    slot = common_pb2.Metadata(value=value, signatures=[signature])
    _set_slot(block, _INDEX.SIGNATURES, slot.SerializeToString())
    index = common_pb2.LastConfig(index=last_config).SerializeToString()
    _set_slot(block, _INDEX.LAST_CONFIG, common_pb2.Metadata(value=index).SerializeToString())


def signed_block_data(block: common_pb2.Block, bundle: ChannelBundle) -> list[SignedData]:
    """Return what the ordering nodes signed and who they say they are; nothing is verified.

    Signatures of SmartBFT name their signer by a number, which the channel configuration resolves; one with an
    unknown number is left out, as in Fabric. Raises MalformedError.
    """
    try:
        slot = common_pb2.Metadata.FromString(_slot(block, _INDEX.SIGNATURES))
        if len(slot.signatures) > _MAX_SIGNATURES:
            raise MalformedError(f"block {block.header.number} carries more than {_MAX_SIGNATURES} signatures")
        signed: list[SignedData] = []
        for entry in slot.signatures:
            header = entry.signature_header
            if header or not entry.identifier_header:
                identity = common_pb2.SignatureHeader.FromString(header).creator
            else:
                header = entry.identifier_header
                number = common_pb2.IdentifierHeader.FromString(header).identifier
                identity = _consenter_identity(bundle, number)
                if not identity:
                    continue
            message = signature_message(slot.value, header, block.header)
            signed.append(SignedData(message=message, identity=identity, signature=entry.signature))
    except DecodeError as fault:
        raise MalformedError(f"signatures of block {block.header.number} cannot be decoded") from fault
    return signed


def verify_block_signature(block: common_pb2.Block, bundle: ChannelBundle, *, strict: bool = False) -> None:
    """Check the ordering nodes' signatures of a block against /Channel/Orderer/BlockValidation.

    Args:
        block: The block; its data hash is not checked here (:func:`check_data_hash`).
        bundle: The channel configuration in force before the block.
        strict: Require every single signature to be good, not only enough of them, so that no byte of the slot
            can be changed unnoticed.

    Raises:
        BlockError: If the policy is not satisfied or, with `strict`, a signature is bad.
        MalformedError: If the slot cannot be decoded.
    """
    signed = signed_block_data(block, bundle)
    number = block.header.number
    try:
        bundle.policies.get(BLOCK_VALIDATION_POLICY).evaluate(usable_signatures(signed, bundle.msps))
    except ProtocolError as fault:
        raise BlockError(f"block {number} is not signed as {BLOCK_VALIDATION_POLICY} requires: {fault}") from fault
    if not strict:
        return
    for position, entry in enumerate(signed):
        try:
            good = usable_identity(entry.identity, bundle.msps).verify(entry.message, entry.signature)
        except ProtocolError as fault:
            raise BlockError(f"signature {position} of block {number} is by an unknown identity: {fault}") from fault
        if not good:
            raise BlockError(f"signature {position} of block {number} is not good")


def _consenter_identity(bundle: ChannelBundle, number: int) -> bytes:
    values = bundle.config.channel_group.groups["Orderer"].values
    if "Orderers" not in values:
        return b""
    for consenter in configuration_pb2.Orderers.FromString(values["Orderers"].value).consenter_mapping:
        if consenter.id == number:
            identity = identities_pb2.SerializedIdentity(mspid=consenter.msp_id, id_bytes=consenter.identity)
            return identity.SerializeToString()
    return b""


# --- strictness ------------------------------------------------------------------------------------------------------


def is_canonical(block_bytes: bytes) -> bool:
    """Whether :func:`canonical_faults` finds nothing."""
    return not canonical_faults(block_bytes)


def canonical_faults(block_bytes: bytes) -> list[str]:
    """Return in words everything about the bytes of a committed block that an honest peer would not have written.

    Signatures and hashes cover the header and the data. This covers the rest, so that no byte of a stored block can
    change unnoticed: the encoding itself, unknown fields, and the metadata slots that are signed by nobody. (Filter
    and commit hash are only checked for their form: recompute them with :func:`~.commit.validate_block`.)
    """
    try:
        block = parse_block(block_bytes)
    except MalformedError as fault:
        return [str(fault)]
    faults: list[str] = []
    if block.SerializeToString() != block_bytes:
        faults.append("re-serialising the block gives other bytes")
    if has_unknown_fields(block):
        faults.append("the block has unknown fields")
    slots = list(block.metadata.metadata)
    if len(slots) != METADATA_SLOTS:
        return [*faults, f"the block has {len(slots)} metadata slots, not {METADATA_SLOTS}"]
    if not is_config_block(block):
        faults += _envelope_faults(block.data.data)
    for index in (_INDEX.SIGNATURES, _INDEX.LAST_CONFIG, _INDEX.COMMIT_HASH):
        faults += _exact_faults(common_pb2.Metadata, slots[index], f"metadata slot {index}")
    if faults:
        return faults
    return _slot_faults(block, slots)


def _slot_faults(block: common_pb2.Block, slots: Sequence[bytes]) -> list[str]:
    faults: list[str] = []
    signatures = common_pb2.Metadata.FromString(slots[_INDEX.SIGNATURES])
    last_config = common_pb2.Metadata.FromString(slots[_INDEX.LAST_CONFIG])
    commit_hash = common_pb2.Metadata.FromString(slots[_INDEX.COMMIT_HASH])
    if last_config.signatures or commit_hash.signatures:
        faults.append("a metadata slot carries signatures that nobody makes")
    if slots[_INDEX.ORDERER]:
        faults.append("the ORDERER slot is not empty")
    if len(slots[_INDEX.TRANSACTIONS_FILTER]) not in (0, len(block.data.data)):
        faults.append("the transactions filter has not one code per transaction")
    if len(commit_hash.value) not in (0, 32):
        faults.append("the commit hash is not 32 bytes long")
    if slots[_INDEX.COMMIT_HASH] and not commit_hash.value:
        faults.append("the COMMIT_HASH slot holds an empty hash")
    faults += _exact_faults(common_pb2.LastConfig, last_config.value, "last config")
    faults += _exact_faults(common_pb2.OrdererBlockMetadata, signatures.value, "orderer metadata")
    for entry in signatures.signatures:
        if entry.signature_header and entry.identifier_header:
            faults.append("a block signature has two headers, one of which is not signed")
    if not faults and signatures.value:
        signed = common_pb2.OrdererBlockMetadata.FromString(signatures.value).last_config.index
        if signed != common_pb2.LastConfig.FromString(last_config.value).index:
            faults.append("the LAST_CONFIG slot differs from the signed last config index")
    return faults


def _envelope_faults(envelopes: Iterable[bytes]) -> list[str]:
    """protoutil VerifyTransactionsAreWellFormed."""
    faults: list[str] = []
    for position, encoded in enumerate(envelopes):
        faults += _exact_faults(common_pb2.Envelope, encoded, f"transaction {position}")
        if not faults:
            envelope = common_pb2.Envelope.FromString(encoded)
            if not envelope.payload:
                faults.append(f"transaction {position} has no payload")
            if not envelope.signature:
                faults.append(f"transaction {position} has no signature")
    return faults


def _exact_faults(kind: type[Message], encoded: bytes, name: str) -> list[str]:
    try:
        message = kind.FromString(encoded)
    except DecodeError:
        return [f"{name} cannot be decoded"]
    if message.SerializeToString() != encoded:
        return [f"re-serialising {name} gives other bytes"]
    return [f"{name} has unknown fields"] if has_unknown_fields(message) else []


# --- framing ---------------------------------------------------------------------------------------------------------


def frame_block(block_bytes: bytes) -> bytes:
    """Return the length as a varint, then the block."""
    return encode_varint(len(block_bytes)) + block_bytes


def write_block_file(blocks: Iterable[bytes]) -> bytes:
    """Return framed blocks, one after the other. For long chains write :func:`frame_block` piece by piece."""
    return b"".join(frame_block(block) for block in blocks)


def iter_block_file(source: bytes | BinaryIO, *, max_block_bytes: int = 128 * 1024 * 1024) -> Iterator[bytes]:
    """Yield the blocks of a framed file.

    Args:
        source: The bytes, or an open binary file at the first frame.
        max_block_bytes: Longer blocks are refused before they are read.

    Raises:
        MalformedError: At a torn frame, an oversized one, or a length that is not encoded shortest.
    """
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    while (length := _read_length(stream)) is not None:
        if length > max_block_bytes:
            raise MalformedError(f"frame of {length} bytes exceeds the limit of {max_block_bytes}")
        block = stream.read(length)
        if len(block) != length:
            raise MalformedError(f"frame of {length} bytes is torn after {len(block)}")
        yield block


def _read_length(stream: BinaryIO) -> int | None:
    length = shift = 0
    while byte := stream.read(1):
        length |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            if byte[0] == 0 and shift:
                raise MalformedError("length of a frame is not encoded shortest")
            return length
        shift += 7
        if shift > 28:
            raise MalformedError("length of a frame has too many digits")
    if shift:
        raise MalformedError("length of a frame is torn")
    return None


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    digits = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(digits))) + digits + content

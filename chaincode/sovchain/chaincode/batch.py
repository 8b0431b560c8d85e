"""Writes that wait to go to the peer together.

A peer that offers it takes many writes in one message (WRITE_BATCH_STATE). Records keep the order in which the
contract made them, so that the last write to a key wins as it does one by one. Messages are cut by the number of
records that the peer allows and by bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fabric_protos.peer import chaincode_shim_pb2 as shim

from sovchain.chaincode.exchange import MAX_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

FLUSH_BYTES = 16 * 1024 * 1024
"""Writes are sent before the end of the transaction once they hold this many bytes."""
MIN_BATCH_RECORDS = 100
"""A smaller limit of the peer counts as this (fabric-chaincode-go/shim/handler.go)."""
_RECORD_OVERHEAD = 16


class WriteBatch:
    """Records in order of insertion."""

    def __init__(self) -> None:
        self._records: list[shim.WriteRecord] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    @property
    def full(self) -> bool:
        """Whether it is time to send."""
        return self._bytes >= FLUSH_BYTES

    def add(self, record: shim.WriteRecord) -> None:
        """Append a record."""
        self._records.append(record)
        self._bytes += record.ByteSize() + _RECORD_OVERHEAD

    def take(self, max_records: int) -> Iterator[bytes]:
        """Empty the batch into the payloads of as many messages as it needs."""
        records, self._records, self._bytes = self._records, [], 0
        chunk: list[shim.WriteRecord] = []
        size = 0
        for record in records:
            length = record.ByteSize() + _RECORD_OVERHEAD
            if chunk and (len(chunk) >= max_records or size + length > MAX_PAYLOAD_BYTES):
                yield shim.WriteBatchState(rec=chunk).SerializeToString()
                chunk, size = [], 0
            chunk.append(record)
            size += length
        if chunk:
            yield shim.WriteBatchState(rec=chunk).SerializeToString()

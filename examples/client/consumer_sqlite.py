"""Events into SQLite, exactly once in effect: the position is kept in the database that the events change.

python consumer_sqlite.py connections/Logistics.json User1@logistics.example/msp LogisticsMSP logistics logistics out.db
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys

from sovchain.client import ChaincodeEvent, Gateway, Position, SigningIdentity

SCHEMA = """
CREATE TABLE IF NOT EXISTS waybills (number TEXT PRIMARY KEY, name TEXT, transaction_id TEXT) STRICT;
CREATE TABLE IF NOT EXISTS position (id INTEGER PRIMARY KEY CHECK (id = 0), block INTEGER, transaction_id TEXT) STRICT;
"""


class Store:
    """The database. Implements `sovchain.client.Checkpointer` for reading; positions are written with the data."""

    def __init__(self, path: str) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.executescript(SCHEMA)

    async def load(self) -> Position | None:
        row = self.database.execute("SELECT block, transaction_id FROM position").fetchone()
        return None if row is None else Position(*row)

    async def save(self, position: Position) -> None:
        """The position is written with the data (`apply`): nothing is left to do when the loop goes on."""

    def apply(self, event: ChaincodeEvent) -> None:
        """Change the data and the position in one transaction: both are there after a crash, or neither."""
        place = event.position
        self.database.execute("BEGIN IMMEDIATE")
        try:
            self.database.execute(
                "INSERT OR REPLACE INTO waybills VALUES (?, ?, ?)",
                (event.payload.decode(errors="replace"), event.name, event.transaction_id),
            )
            self.database.execute(
                "INSERT OR REPLACE INTO position VALUES (0, ?, ?)", (place.block_number, place.transaction_id)
            )
            self.database.execute("COMMIT")
        except BaseException:
            self.database.execute("ROLLBACK")
            raise


async def consume(gateway: Gateway, channel: str, chaincode: str, store: Store, *, start: int = 0) -> None:
    """Apply every event from `start` on, or from where the store stands."""
    async with gateway.network(channel).contract(chaincode).events(start=start, checkpoint=store) as events:
        async for event in events:
            store.apply(event)


async def main(profile: str, msp: str, msp_id: str, channel: str, chaincode: str, path: str) -> None:
    identity = SigningIdentity.from_msp_folder(msp, msp_id)
    async with Gateway.connect(profile, identity) as gateway:
        await consume(gateway, channel, chaincode, Store(path))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

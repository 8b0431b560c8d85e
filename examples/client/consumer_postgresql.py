"""Events into PostgreSQL, exactly once in effect: the position is kept in the database that the events change.

    python consumer_postgresql.py connections/Logistics.json User1@logistics.example/msp LogisticsMSP logistics logistics "dbname=city"

Needs `pip install "psycopg[binary]"`. Several consumers may run: one of them holds the lock, the others wait for it.
"""

from __future__ import annotations

import asyncio
import sys

import psycopg

from sovchain.client import ChaincodeEvent, Gateway, Position, SigningIdentity

LOCK = 0x536F7663  # one number for all consumers of this stream

SCHEMA = """
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, name TEXT NOT NULL, payload BYTEA NOT NULL);
CREATE TABLE IF NOT EXISTS position (id INT PRIMARY KEY CHECK (id = 0), block BIGINT NOT NULL, transaction_id TEXT NOT NULL);
"""


class Store:
    """The database. Implements `sovchain.client.Checkpointer` for reading; positions are written with the data."""

    def __init__(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        self.connection = connection

    @classmethod
    async def open(cls, database: str) -> Store:
        connection = await psycopg.AsyncConnection.connect(database, autocommit=True)
        await connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        await connection.execute(SCHEMA)
        return cls(connection)

    async def load(self) -> Position | None:
        cursor = await self.connection.execute("SELECT block, transaction_id FROM position")
        row = await cursor.fetchone()
        return None if row is None else Position(int(str(row[0])), str(row[1]))

    async def save(self, position: Position) -> None:
        """The position is written with the data (`apply`): nothing is left to do when the loop goes on."""

    async def apply(self, event: ChaincodeEvent) -> None:
        """Change the data and the position in one transaction: both are there after a crash, or neither."""
        place = event.position
        async with self.connection.transaction():
            await self.connection.execute(
                "INSERT INTO events VALUES (%s, %s, %s)", (event.id, event.name, event.payload)
            )
            await self.connection.execute(
                "INSERT INTO position VALUES (0, %s, %s) ON CONFLICT (id) DO UPDATE"
                " SET block = excluded.block, transaction_id = excluded.transaction_id",
                (place.block_number, place.transaction_id),
            )


async def consume(gateway: Gateway, channel: str, chaincode: str, store: Store, *, start: int = 0) -> None:
    """Apply every event from `start` on, or from where the store stands."""
    async with gateway.network(channel).contract(chaincode).events(start=start, checkpoint=store) as events:
        async for event in events:
            await store.apply(event)


async def main(profile: str, msp: str, msp_id: str, channel: str, chaincode: str, database: str) -> None:
    identity = SigningIdentity.from_msp_folder(msp, msp_id)
    async with Gateway.connect(profile, identity) as gateway:
        await consume(gateway, channel, chaincode, await Store.open(database))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""Submits waybills to a running network and prints the number of each one that is committed, until it is cut off."""

from __future__ import annotations

import asyncio
import sys
from itertools import count

from sovchain.client import FabricError
from sovchain.contracts.logistics import ConsignmentNote, Waybills
from sovchain.network import Network


async def main(directory: str) -> None:
    async with Network.attach(directory) as network, network.connect("Logistics", "User1") as gateway:
        waybills = gateway.network("logistics").contract("logistics")
        numbers = count()

        async def worker() -> None:
            while True:
                number = f"GY-{next(numbers):06d}"
                note = ConsignmentNote(
                    number=number,
                    consignor="Guiyang Tea Works",
                    consignee="Zunyi Stores",
                    origin="Guiyang",
                    destination="Zunyi",
                    goods="tea",
                    packages=12,
                    weight_kg=240,
                )
                await waybills.submit(Waybills.issue, note)
                print(number, flush=True)

        await asyncio.gather(*(worker() for _ in range(8)))


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1]))
    except FabricError:
        sys.exit(0)

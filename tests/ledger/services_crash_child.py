"""A whole ledger whose clients submit through the Gateway; prints each commit that a client was told, until killed.

python services_crash_child.py DIRECTORY CREDENTIALS
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import structlog
from client_mode_chaincode import chaincode
from fabric_protos.msp import msp_config_pb2
from ledger_world import OrganizationDefinition, World
from service_world import CHANNEL, Services, Tls, host_of

from sovchain.chaincode.connect import PeerConnection
from sovchain.chaincode.tls import ClientTls
from sovchain.protocol.packages import build_package, package_id

LETTERS = build_package("letters", "python", {"src/main.py": b""})
"""A package without an address: its chaincode dials the peer."""


async def main(directory: Path, credentials: Path) -> None:
    world = World.load(credentials)
    for msp_id, organisation in world.organisations.items():
        # The peers take the MSP from the channel: the authority's key stayed with the parent.
        definition = OrganizationDefinition(msp_id, msp_config_pb2.FabricMSPConfig())
        organisation.definition = lambda found=definition: found  # type: ignore[method-assign]  # as said
    net = Services(directory, world, Tls.create())
    await net.start()
    address = f"localhost:{net.ledger.address_of(host_of(net.first)).rpartition(':')[2]}"
    connection = PeerConnection(chaincode, package_id(LETTERS, "letters"), address, tls=ClientTls(net.tls.root_pem))
    running = asyncio.create_task(connection.run())
    while (await net.process(net.proposal("Letters:get", "x", chaincode="letters")[1])).response.status != 200:
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    number = net.ledger.channels[CHANNEL].height * 1000

    async def one(number: int) -> None:
        told = await net.transact("Letters:put", f"k{number}", json.dumps(str(number)), chaincode="letters")
        print(json.dumps([*told, number]), flush=True)

    while not running.done():
        await asyncio.gather(*(one(number + offset) for offset in range(4)))
        number += 4


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2])))

"""A transaction whose key never sees the network: one program proposes and sends, another one signs.

python offline_signer.py sign user.key < message > signature          # on the machine that has the key
python offline_signer.py submit connections/Finance.json user.pem FinanceMSP finance finance FUNCTION ARGUMENT...
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from sovchain.client import CommitStatus, Gateway, Identity
from sovchain.protocol.crypto import load_private_key, sign

Sign = Callable[[bytes], bytes]


def sign_here(key_path: str, message: bytes) -> bytes:
    """What the machine with the key does."""
    return sign(load_private_key(Path(key_path).read_bytes()), message)


async def submit(
    gateway: Gateway, signer: Sign, channel: str, chaincode: str, function: str, *arguments: str
) -> tuple[bytes, CommitStatus]:
    """Take the steps of a submit; `signer` carries a message to the key and brings a signature back."""
    proposal = gateway.network(channel).contract(chaincode).proposal(function, *arguments)
    transaction = await proposal.with_signature(signer(proposal.message)).endorse()
    pending = await transaction.with_signature(signer(transaction.message)).submit()
    commit = gateway.load_commit(pending.to_bytes())
    return transaction.result, await commit.with_signature(signer(commit.message)).status()


def ask(message: bytes) -> bytes:
    """Stands for the way to the machine with the key: another process."""
    command = [sys.executable, __file__, "sign", "user.key"]
    return subprocess.run(command, input=message, capture_output=True, check=True).stdout  # noqa: S603 - this program


async def main(profile: str, certificate: str, msp_id: str, channel: str, chaincode: str, *call: str) -> None:
    identity = Identity(msp_id, await asyncio.to_thread(Path(certificate).read_bytes))
    async with Gateway.connect(profile, identity) as gateway:
        result, status = await submit(gateway, ask, channel, chaincode, *call)
        sys.stdout.write(f"{result.decode()}: {status.code_name} in block {status.block_number}\n")


if __name__ == "__main__":
    if sys.argv[1] == "sign":
        sys.stdout.buffer.write(sign_here(sys.argv[2], sys.stdin.buffer.read()))
    else:
        asyncio.run(main(*sys.argv[2:]))

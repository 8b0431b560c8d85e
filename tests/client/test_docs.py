"""The code of docs/client runs as it is written, against a gateway that answers as a peer does."""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from fabric_protos.gateway import gateway_pb2
from fabric_protos.peer import policy_pb2, proposal_response_pb2
from fabric_protos.peer.lifecycle import lifecycle_pb2
from fakegateway import FakeGateway, LiveAuthority, Stream, events, key_pem, profile_of
from pki import pem

import sovchain.client
from sovchain.client import EndorsementsInsufficient, Gateway, SigningIdentity
from sovchain.protocol.proposals import parse_signed_proposal

PAGES = Path(__file__).parents[2] / "docs/client"
BLOCKS = [
    (f"{page.name}:{text.count(chr(10), 0, found.start()) + 1}", found[1])
    for page in sorted(PAGES.glob("*.md"))
    for text in [page.read_text()]
    for found in re.finditer(r"^```(?:python|py)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
]


class Enough(Exception):
    """Ends a loop over events, which would go on for ever."""


def definition(method: str, request: bytes) -> bytes | None:
    """The chaincode's definition as _lifecycle tells it: endorsed as the channel's default has it."""
    if method != "Evaluate":
        return None
    proposed = gateway_pb2.EvaluateRequest.FromString(request).proposed_transaction
    if parse_signed_proposal(proposed).chaincode != "_lifecycle":
        return None
    policy = policy_pb2.ApplicationPolicy(channel_config_policy_reference="/Channel/Application/Endorsement")
    result = lifecycle_pb2.QueryChaincodeDefinitionResult(
        sequence=1, version="1.0", validation_plugin="vscc", validation_parameter=policy.SerializeToString()
    )
    response = proposal_response_pb2.Response(status=200, payload=result.SerializeToString())
    return gateway_pb2.EvaluateResponse(result=response).SerializeToString()


async def run(code: str, names: dict[str, Any]) -> None:
    compiled = compile(code, "<docs>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made: Awaitable[None] | None = eval(compiled, names)
    if inspect.isawaitable(made):
        await made


def test_every_block_of_code_is_in_a_language_that_is_run() -> None:
    languages = {
        language
        for page in PAGES.glob("*.md")
        for language in re.findall(r"^```(\w*)\n.*?^```", page.read_text(), re.DOTALL | re.MULTILINE)
    }
    assert languages == {"python"}
    assert len(BLOCKS) >= 10


@pytest.mark.parametrize("code", [code for _, code in BLOCKS], ids=[place for place, _ in BLOCKS])
async def test_a_block_runs(
    code: str, fake: FakeGateway, authority: LiveAuthority, sovchain_network: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    signer = authority.issue("User1", "client")
    monkeypatch.chdir(tmp_path)
    profile = json.dumps(profile_of(fake)).replace("Org1MSP", "FinanceMSP")
    for path, content in (
        ("connections/Finance.json", profile.encode()),
        ("User1@finance.example/msp/signcerts/cert.pem", pem(signer.certificate)),
        ("User1@finance.example/msp/keystore/key.pem", key_pem(signer)),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    heard = [events(block, name * 64, chaincode="finance") for block, name in ((1001, "a"), (1002, "b"))]
    fake.script("ChaincodeEvents", Stream(tuple(heard), hold=True))
    handled: list[str] = []

    async def handle(event: sovchain.client.ChaincodeEvent) -> None:
        handled.append(event.transaction_id)
        if len(handled) == 2:
            raise Enough

    identity = SigningIdentity.from_pem("FinanceMSP", pem(signer.certificate), key_pem(signer))
    fake.healthy_hook = definition
    async with Gateway.connect(json.loads(profile), identity) as gateway:
        network = gateway.network("finance")
        names: dict[str, Any] = {name: getattr(sovchain.client, name) for name in sovchain.client.__all__}
        names |= {
            "profile": json.loads(profile), "identity": identity, "gateway": gateway, "network": network,
            "contract": network.contract("finance"), "handle": handle, "sign": identity.sign,
            "certificate_pem": pem(signer.certificate),
            "config_block": (sovchain_network / "channels/finance.block").read_bytes(),
        }  # fmt: skip
        if "endorsement_check" in code:
            # Endorsed by this test's own authority, which the channel has never heard of.
            with pytest.raises(EndorsementsInsufficient):
                await run(code, names)
        elif "handle(" in code:
            with pytest.raises(Enough):
                await run(code, names)
            assert handled == ["a" * 64, "b" * 64]
        else:
            await run(code, names)
    if "submit" in code and "endorsement_check" not in code:
        assert fake.requests["Submit"]

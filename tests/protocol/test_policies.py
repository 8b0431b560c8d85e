"""Policies are parsed, written and evaluated as Fabric does it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from pki import Authority, Signer, pem

from sovchain.protocol.channelconfig import msp_config
from sovchain.protocol.errors import PolicySyntaxError, PolicyUnsatisfied
from sovchain.protocol.msp import Msp, MspManager
from sovchain.protocol.policies import ImplicitMetaPolicy, SignaturePolicy, SignedData, satisfying_organisations
from sovchain.protocol.policydsl import parse, render

ORGS = ("AMSP", "BMSP", "CMSP")
ROLES = ("client", "peer", "admin", "orderer")
AUTHORITIES = {name: Authority(name) for name in ORGS}
SIGNERS = [(org, role, AUTHORITIES[org].issue(f"{role}{i}", role)) for org in ORGS for role in ROLES for i in range(2)]
MSPS = MspManager(Msp.from_config(msp_config(name, [pem(ca.certificate)])) for name, ca in AUTHORITIES.items())
MESSAGE = b"what is signed"
SIGNED = {id(signer): SignedData(MESSAGE, signer.creator, signer.sign(MESSAGE)) for _, _, signer in SIGNERS}

principals = st.builds(lambda org, role: f"'{org}.{role}'", st.sampled_from(ORGS), st.sampled_from((*ROLES, "member")))


def gates(children: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    parts = st.lists(children, min_size=1, max_size=4)
    return st.one_of(
        parts.map(lambda p: f"AND({', '.join(p)})"),
        parts.map(lambda p: f"OR({', '.join(p)})"),
        parts.flatmap(lambda p: st.integers(0, len(p) + 1).map(lambda n: f"OutOf({n}, {', '.join(p)})")),
    )


policies = gates(st.recursive(principals, gates, max_leaves=8))
signer_lists = st.lists(st.sampled_from(SIGNERS), max_size=6)


def independent(text: str, signers: Sequence[tuple[str, str, Signer]]) -> bool:
    """A second evaluator, written from the rules and on plain values: lists instead of flags, no protobuf of the first."""
    envelope = parse(text)

    def fits(index: int, signer: tuple[str, str, Signer]) -> bool:
        role = msp_principal_pb2.MSPRole.FromString(envelope.identities[index].principal)
        wanted = msp_principal_pb2.MSPRole.MSPRoleType.Name(role.role).lower()
        return role.msp_identifier == signer[0] and wanted in ("member", signer[1])

    def walk(rule: policies_pb2.SignaturePolicy, free: list[int]) -> list[int] | None:
        if rule.WhichOneof("Type") == "signed_by":
            for place in free:
                if fits(rule.signed_by, unique[place]):
                    return [other for other in free if other != place]
            return None
        met = 0
        for part in rule.n_out_of.rules:
            left = walk(part, free)
            if left is not None:
                met, free = met + 1, left
        return free if met >= rule.n_out_of.n else None

    unique = []
    for signer in signers:
        if all(signer[2] is not other[2] for other in unique):
            unique.append(signer)
    return walk(envelope.rule, list(range(len(unique)))) is not None


def satisfied(policy: SignaturePolicy | ImplicitMetaPolicy, signed: Sequence[SignedData]) -> bool:
    try:
        policy.evaluate(signed)
    except PolicyUnsatisfied:
        return False
    return True


@settings(max_examples=400, deadline=None)
@given(policies, signer_lists)
def test_evaluation_agrees_with_an_independent_evaluator(text: str, signers: list[tuple[str, str, Signer]]) -> None:
    signed = [SIGNED[id(signer)] for _, _, signer in signers]
    assert satisfied(SignaturePolicy(parse(text), MSPS), signed) == independent(text, signers)


@settings(max_examples=200, deadline=None)
@given(policies)
def test_text_survives_a_round_trip(text: str) -> None:
    envelope = parse(text)
    assert parse(render(envelope)) == envelope


@settings(max_examples=200, deadline=None)
@given(policies)
def test_minimal_sets_of_organisations_are_what_evaluation_says(text: str) -> None:
    """A set satisfies when every identity of its organisations signs; supersets of minimal sets do, others do not."""
    envelope = parse(text)
    minimal = satisfying_organisations(envelope)
    # Everybody signs many times, so that greedy assignment never runs out of signatures of one organisation.
    assert all(a == b or not a <= b for a in minimal for b in minimal)
    used = {msp_principal_pb2.MSPRole.FromString(p.principal).msp_identifier for p in envelope.identities}
    assert all(chosen <= used for chosen in minimal)


def test_greedy_assignment_is_kept_with_its_failures() -> None:
    """AND(member, admin) fails for [admin, client] and passes for [client, admin]: Fabric does not backtrack."""
    policy = SignaturePolicy(parse("AND('AMSP.member', 'AMSP.admin')"), MSPS)
    by_role = {role: SIGNED[id(signer)] for org, role, signer in SIGNERS if org == "AMSP"}
    assert not satisfied(policy, [by_role["admin"], by_role["client"]])
    assert satisfied(policy, [by_role["client"], by_role["admin"]])


def test_one_identity_counts_once_and_a_bad_signature_not_at_all() -> None:
    policy = SignaturePolicy(parse("AND('AMSP.member', 'AMSP.member')"), MSPS)
    first, second = [SIGNED[id(signer)] for org, _, signer in SIGNERS if org == "AMSP"][:2]
    assert not satisfied(policy, [first, first])
    assert satisfied(policy, [first, second])
    assert not satisfied(policy, [first, SignedData(MESSAGE, second.identity, first.signature)])
    assert not satisfied(policy, [first, SignedData(b"other", second.identity, second.signature)])
    assert not satisfied(policy, [first, SignedData(MESSAGE, b"rubbish", b"")])


def test_the_failure_text_is_fabrics() -> None:
    with pytest.raises(PolicyUnsatisfied, match="signature set did not satisfy policy"):
        SignaturePolicy(parse("OR('AMSP.member')"), MSPS).evaluate([])


@pytest.mark.parametrize(
    ("rule", "present", "expected"),
    [
        ("ANY", 1, True),
        ("ANY", 0, False),
        ("ALL", 2, False),
        ("ALL", 3, True),
        ("MAJORITY", 1, False),
        ("MAJORITY", 2, True),
    ],
)
def test_implicit_meta_counts_its_groups(rule: str, present: int, expected: bool) -> None:
    meta = policies_pb2.ImplicitMetaPolicy(
        rule=policies_pb2.ImplicitMetaPolicy.Rule.Value(rule),
        sub_policy="Endorsement",
    )
    children = [SignaturePolicy(parse(f"OR('{org}.peer')"), MSPS) for org in ORGS]
    peers = [next(SIGNED[id(s)] for org, role, s in SIGNERS if (org, role) == (name, "peer")) for name in ORGS]
    assert satisfied(ImplicitMetaPolicy(meta, children, "x", MSPS), peers[:present]) is expected


def test_a_missing_sub_policy_rejects_but_counts() -> None:
    meta = policies_pb2.ImplicitMetaPolicy(rule=policies_pb2.ImplicitMetaPolicy.MAJORITY, sub_policy="Endorsement")
    peer = next(SIGNED[id(s)] for org, role, s in SIGNERS if (org, role) == ("AMSP", "peer"))
    policy = ImplicitMetaPolicy(meta, [SignaturePolicy(parse("OR('AMSP.peer')"), MSPS), None], "x", MSPS)
    with pytest.raises(
        PolicyUnsatisfied, match="1 sub-policies were satisfied, but this policy requires 2 of the 'Endorsement'"
    ):
        policy.evaluate([peer])


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("", 0),
        ("AND", 3),
        ("AND('AMSP.peer'", 15),
        ("NAND('AMSP.peer')", 0),
        ("AND('AMSP.king')", 5),
        ("AND('AMSP')", 5),
        ("OutOf('AMSP.peer')", 6),
        ("OutOf(3, 'AMSP.peer')", 0),
        ("AND('AMSP.peer') x", 16),
        ("AND('AMSP.peer' 'BMSP.peer')", 16),
    ],
)
def test_bad_text_is_refused_with_its_position(text: str, position: int) -> None:
    with pytest.raises(PolicySyntaxError) as caught:
        parse(text)
    assert caught.value.position == position


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="ANDORutof(),'.123 aMSPpeer\"", max_size=60))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        parse(text)
    except PolicySyntaxError as error:
        assert 0 <= error.position <= len(text)

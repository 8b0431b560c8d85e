"""The text form of signature policies (common/policydsl/policyparser.go): AND, OR, OutOf over 'MSP.role'."""

from __future__ import annotations

import re
from typing import Final

from fabric_protos.common import policies_pb2
from fabric_protos.msp import msp_principal_pb2

from sovchain.protocol.errors import PolicySyntaxError

_TOKEN: Final = re.compile(
    r"\s*(?:(?P<word>[A-Za-z]+)|(?P<number>\d{1,6})|(?P<quote>'[^']*'|\"[^\"]*\")|(?P<mark>[(),]))"
)
_PRINCIPAL: Final = re.compile(r"([A-Za-z0-9.-]+)\.(admin|member|client|peer|orderer)")
_GATES: Final = {
    "AND": "and",
    "And": "and",
    "and": "and",
    "OR": "or",
    "Or": "or",
    "or": "or",
    "OutOf": "outof",
    "OUTOF": "outof",
    "outof": "outof",
}
TEXT_MAX = 20_000
DEPTH_MAX = 50


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.principals: list[msp_principal_pb2.MSPPrincipal] = []

    def fail(self, message: str, at: int | None = None) -> PolicySyntaxError:
        return PolicySyntaxError(message, self.at if at is None else at, self.text)

    def token(self) -> tuple[str, str, int]:
        match = _TOKEN.match(self.text, self.at)
        if match is None:
            rest = self.text[self.at :]
            stripped = len(rest) - len(rest.lstrip())
            raise self.fail(
                "unexpected end of the policy" if not rest.strip() else "unexpected character", self.at + stripped
            )
        self.at = match.end()
        kind = str(match.lastgroup)
        return kind, match.group(kind), match.start(kind)

    def expect(self, mark: str) -> None:
        kind, value, at = self.token()
        if (kind, value) != ("mark", mark):
            raise self.fail(f"expected {mark!r}, found {value!r}", at)

    def rule(self, depth: int = 0) -> policies_pb2.SignaturePolicy:
        if depth > DEPTH_MAX:
            raise self.fail(f"more than {DEPTH_MAX} levels")
        kind, value, at = self.token()
        if kind == "quote":
            return self.principal(value[1:-1], at + 1)
        gate = _GATES.get(value) if kind == "word" else None
        if gate is None:
            raise self.fail(f"expected AND, OR, OutOf or a principal such as 'OrgMSP.peer', found {value!r}", at)
        self.expect("(")
        count = None
        if gate == "outof":
            kind, value, place = self.token()
            if kind == "quote":
                value = value[1:-1]
            if not value.isdigit():
                raise self.fail(f"OutOf needs a number first, found {value!r}", place)
            count = int(value)
            self.expect(",")
        rules = [self.rule(depth + 1)]
        while True:
            kind, value, place = self.token()
            if value == ")":
                break
            if value != ",":
                raise self.fail(f"expected ',' or ')', found {value!r}", place)
            rules.append(self.rule(depth + 1))
        n = {"and": len(rules), "or": 1}.get(gate, count)
        assert n is not None
        if n > len(rules) + 1:
            raise self.fail(f"OutOf({n}, ...) asks for more than its {len(rules)} parts", at)
        return policies_pb2.SignaturePolicy(n_out_of=policies_pb2.SignaturePolicy.NOutOf(n=n, rules=rules))

    def principal(self, text: str, at: int) -> policies_pb2.SignaturePolicy:
        match = _PRINCIPAL.fullmatch(text)
        if match is None:
            raise self.fail(
                f"{text!r} is not a principal such as 'OrgMSP.peer' with role admin, member, client, peer or orderer",
                at,
            )
        role = msp_principal_pb2.MSPRole(
            msp_identifier=match[1], role=msp_principal_pb2.MSPRole.MSPRoleType.Value(match[2].upper())
        )
        self.principals.append(
            msp_principal_pb2.MSPPrincipal(
                principal_classification=msp_principal_pb2.MSPPrincipal.ROLE, principal=role.SerializeToString()
            )
        )
        return policies_pb2.SignaturePolicy(signed_by=len(self.principals) - 1)


def parse(text: str) -> policies_pb2.SignaturePolicyEnvelope:
    """Raises PolicySyntaxError."""
    if len(text) > TEXT_MAX:
        raise PolicySyntaxError(f"the policy has more than {TEXT_MAX} characters", TEXT_MAX, text[:100])
    parser = _Parser(text)
    rule = parser.rule()
    if text[parser.at :].strip():
        raise parser.fail("text after the end of the policy")
    return policies_pb2.SignaturePolicyEnvelope(version=0, rule=rule, identities=parser.principals)


def organisations(envelope: policies_pb2.SignaturePolicyEnvelope) -> frozenset[str]:
    """The MSP ids that a policy over roles names."""
    return frozenset(
        msp_principal_pb2.MSPRole.FromString(principal.principal).msp_identifier
        for principal in envelope.identities
        if principal.principal_classification == msp_principal_pb2.MSPPrincipal.ROLE
    )


def render(envelope: policies_pb2.SignaturePolicyEnvelope) -> str:
    """Write a policy as text; the inverse of `parse` for policies over roles."""

    def principal(index: int) -> str:
        found = envelope.identities[index]
        if found.principal_classification != msp_principal_pb2.MSPPrincipal.ROLE:
            return f"<principal {index}>"
        role = msp_principal_pb2.MSPRole.FromString(found.principal)
        return f"'{role.msp_identifier}.{msp_principal_pb2.MSPRole.MSPRoleType.Name(role.role).lower()}'"

    def rule(node: policies_pb2.SignaturePolicy) -> str:
        if node.WhichOneof("Type") == "signed_by":
            return principal(node.signed_by)
        parts = ", ".join(rule(part) for part in node.n_out_of.rules)
        n, count = node.n_out_of.n, len(node.n_out_of.rules)
        if n == count:
            return f"AND({parts})"
        return f"OR({parts})" if n == 1 else f"OutOf({n}, {parts})"

    return rule(envelope.rule)

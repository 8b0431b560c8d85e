"""A law as an ODRL policy."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import cedarpy

from sovchain.contracts.core.cedartext import PolicyText, parse_policies
from sovchain.contracts.core.lawtext import LawText
from sovchain.contracts.core.obligations import parse_obligations
from sovchain.contracts.core.records import Obligation
from sovchain.sovereign.odrl.terms import (
    ACTIONS,
    ATTRIBUTES,
    COLLECTIONS,
    COMPARISONS,
    CONTEXT,
    DUTIES,
    EVERY_ACTION,
    LISTED,
    MASKS,
    OPPOSITES,
    PROFILE,
    Condition,
    OdrlError,
    Place,
    moment,
)

Tree = Mapping[str, Any]
Json = dict[str, Any]
Conditions = tuple[Condition, ...]

CASES_MAX = 16
"""Most rules that one clause may become."""

_BY_PATH = {attribute.path: attribute for attribute in ATTRIBUTES} | {
    attribute.exact: attribute for attribute in ATTRIBUTES if attribute.exact
}


def export_odrl(law: LawText) -> Json:
    """A law as an ODRL Set in JSON-LD. A clause whose condition holds in one of several cases becomes a rule for each.

    Raises OdrlError, with line, column and clause, for a clause that ODRL with this profile cannot say.
    """
    header = law.header
    uid = f"urn:sovchain:law:{header.law}:{header.version}"
    rules: dict[str, list[Json]] = {"permission": [], "prohibition": []}
    found = json.loads(cedarpy.policies_to_json_str(law.text))["staticPolicies"]
    for number, policy in enumerate(parse_policies(law.text)):
        where = f"line {policy.line}, column {policy.column}, {policy.clause}"
        kind = "permission" if policy.effect == "permit" else "prohibition"
        cases = _all_cases(found[f"policy{number}"], where)
        for case, conditions in enumerate(cases, 1):
            clause = policy.clause if len(cases) == 1 else f"{policy.clause}, case {case}"
            rules[kind].append(_rule(f"{uid}#{quote(clause)}", policy, conditions))
    return {
        "@context": [CONTEXT, {"sov": f"{PROFILE}#", "dc": "http://purl.org/dc/terms/"}],
        "@type": "Set",
        "uid": uid,
        "profile": PROFILE,
        "conflict": "prohibit",
        "dc:title": header.title,
        "sov:jurisdiction": header.jurisdiction,
        "sov:effectiveFrom": header.effective_from.isoformat(),
        **{kind: listed for kind, listed in rules.items() if listed},
    }


def _rule(uid: str, policy: PolicyText, conditions: Conditions) -> Json:
    actions = [EVERY_ACTION] if policy.actions is None else [ACTIONS[one] for one in ACTIONS if one in policy.actions]
    rule: Json = {"uid": uid, "action": actions[0] if len(actions) == 1 else actions}
    for place in ("target", "assignee"):
        refined = _refined(place, conditions)
        if place == "target" or "refinement" in refined:
            rule[place] = refined
    constraints = [_constraint(one) for one in conditions if one.attribute.place == "rule"]
    if constraints:
        rule["constraint"] = constraints
    owed = parse_obligations(policy.annotations.get("obligations", ""))
    duties = [duty for one in owed for duty in _duties(one)]
    if duties:
        rule["duty"] = duties
    return rule


def _refined(place: Place, conditions: Conditions) -> Json:
    kind, source = COLLECTIONS[place]
    refinements = [_constraint(one) for one in conditions if one.attribute.place == place]
    return {"@type": kind, "source": source, **({"refinement": refinements} if refinements else {})}


def _constraint(condition: Condition) -> Json:
    values: list[Any] = list(condition.values)
    if condition.attribute.kind == "time":
        values = [{"@value": value, "@type": "xsd:dateTime"} for value in values]
    return {
        "leftOperand": condition.attribute.operand,
        "operator": condition.operator,
        "rightOperand": values if condition.operator in LISTED else values[0],
    }


def _duties(obligation: Obligation) -> Iterator[Json]:
    action = DUTIES[obligation.kind]
    if obligation.kind == "notify":
        yield {"action": action, "informedParty": f"urn:sovchain:msp:{obligation.names[0]}"}
    elif obligation.kind == "cosign":
        yield {"action": action, "consentingParty": "urn:sovchain:seat:regulator"}
    elif obligation.days:
        within = {"@value": f"P{obligation.days}D", "@type": "xsd:duration"}
        yield {"action": action, "constraint": [_said("elapsedTime", "lteq", within)]}
    elif obligation.kind == "quota":
        most, period = _said("count", "eq", obligation.rows_max), _said("sov:period", "eq", obligation.period)
        yield _refining(action, most, period)
    elif obligation.names:
        yield _refining(action, _said("sov:column", "isAnyOf", list(obligation.names)))
    for mask in obligation.masks or ():
        column = _said("sov:column", "eq", mask.column)
        argument = [_said("sov:argument", "eq", mask.argument)] if mask.argument else []
        yield _refining(MASKS[mask.function], column, *argument)
    for rule in obligation.rows or ():
        column, values = _said("sov:column", "eq", rule.column), _said("sov:value", "isAnyOf", list(rule.values))
        yield _refining(action, column, values)


def _said(operand: str, operator: str, value: Any) -> Json:
    return {"leftOperand": operand, "operator": operator, "rightOperand": value}


def _refining(action: str, *refinements: Json) -> Json:
    return {"action": {"rdf:value": {"@id": action}, "refinement": list(refinements)}}


def _all_cases(policy: Tree, where: str) -> list[Conditions]:
    cases: list[Conditions] = [
        tuple(one for name in ("principal", "resource") for one in _head(name, policy[name], where))
    ]
    for condition in policy["conditions"]:
        cases = _crossed(cases, _cases(condition["body"], where, holds=condition["kind"] == "when"), where)
    return cases


def _head(variable: str, constraint: Tree, where: str) -> Iterator[Condition]:
    named = constraint["in"] if constraint["op"] == "is" and "in" in constraint else constraint
    if "entity" in named:
        operator = "==" if named.get("op") == "==" else "in"
        right = {"Value": {"__entity": named["entity"]}}
        yield _compared(operator, {"Var": variable}, right, where, holds=True)


def _cases(tree: Tree, where: str, *, holds: bool) -> list[Conditions]:
    """The cases in which a condition holds, or does not: each a conjunction, any of which is enough."""
    ((operator, parts),) = tree.items()
    if tree == {"Value": holds}:
        return [()]
    if operator == "!":
        return _cases(parts["arg"], where, holds=not holds)
    if operator in {"&&", "||"}:
        left, right = (_cases(parts[side], where, holds=holds) for side in ("left", "right"))
        return _crossed(left, right, where) if (operator == "&&") == holds else [*left, *right]
    if operator == "contains" and "Set" in parts["left"]:
        return [(_compared("contains", parts["right"], parts["left"], where, holds=holds),)]
    if operator == "contains":
        return [(_compared("hasPart", parts["left"], parts["right"], where, holds=holds),)]
    if operator in COMPARISONS or operator == "in":
        return [(_compared(operator, parts["left"], parts["right"], where, holds=holds),)]
    raise OdrlError(where, f"ODRL has nothing for the expression `{operator}`")


def _crossed(some: Sequence[Conditions], others: Sequence[Conditions], where: str) -> list[Conditions]:
    if len(some) * len(others) > CASES_MAX:
        raise OdrlError(where, f"ODRL needs a rule for each case, and the clause has more than {CASES_MAX}: split it")
    return [(*one, *other) for one in some for other in others]


def _compared(operator: str, left: Tree, right: Tree, where: str, *, holds: bool) -> Condition:
    path = _path(left)
    if path is None and _path(right) is not None and operator in COMPARISONS:
        flipped = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(operator, operator)
        return _compared(flipped, right, left, where, holds=holds)
    values = _values(right)
    kinds = {kind for kind, _ in values}
    if path == "principal" and kinds == {"Organisation"} and operator == "in":
        path, operator = "principal.organisation", "=="
    attribute = _BY_PATH.get(path or "")
    if attribute is None or not values:
        raise OdrlError(where, f"ODRL and its profile have no operand for `{path or 'this expression'}`")
    if kinds != {attribute.entity}:
        raise OdrlError(where, f"ODRL's `{attribute.operand}` cannot be compared with that")
    term = _operator(operator, attribute.kind, len(values))
    term = term if holds or term is None else OPPOSITES.get(term)
    if term is None:
        raise OdrlError(
            where, f"ODRL has no operator that says this of `{path}`; split the clause, or say it otherwise"
        )
    return Condition(attribute, term, tuple(value for _, value in values))


def _operator(operator: str, kind: str, count: int) -> str | None:
    """ODRL's operator, None where it has none: for one, that a place lies in one of several."""
    if kind == "set":
        return "hasPart" if operator == "hasPart" else None
    if kind == "word" and operator in {"contains", "in"}:
        return "isAnyOf"
    if operator == "in":
        return "isPartOf" if kind == "place" and count == 1 else None
    return COMPARISONS.get(operator)


def _path(tree: Tree) -> str | None:
    if "Var" in tree:
        return str(tree["Var"])
    inner = tree.get(".")
    before = _path(inner["left"]) if inner else None
    return f"{before}.{inner['attr']}" if before is not None and inner else None


def _values(tree: Tree) -> list[tuple[str, str | int]]:
    """The values that are written out, each with its type of entity, empty for a plain one; none for any other expression."""
    members = tree["Set"] if isinstance(tree.get("Set"), list) else [tree]
    found: list[tuple[str, str | int]] = []
    for member in members:
        instant = member.get("datetime")
        value = member.get("Value") if instant is None else moment(str(instant[0].get("Value")))
        if isinstance(value, dict) and "__entity" in value:
            found.append((value["__entity"]["type"], value["__entity"]["id"]))
        elif isinstance(value, (str, int)) and not isinstance(value, bool):
            found.append(("", value))
        else:
            return []
    return found

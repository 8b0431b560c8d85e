"""An ODRL policy as a law's text, which then takes the way of any other: lint, ballot, date."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

from pydantic import ValidationError

from sovchain.contracts.core.cedartext import CedarTextError
from sovchain.contracts.core.codes import (
    DATA_CLASSES,
    LEGAL_BASES,
    PERSONAL_KINDS,
    PURPOSES,
    ROLES,
    is_jurisdiction,
    level_of,
)
from sovchain.contracts.core.lawtext import read_law
from sovchain.contracts.core.obligations import OBLIGATIONS_MAX, ObligationError, parse_obligations
from sovchain.contracts.core.records import LawHeader
from sovchain.sovereign.odrl.reading import Node, identified, listed, plain, read_json
from sovchain.sovereign.odrl.terms import (
    ACTIONS,
    ATTRIBUTES,
    COLLECTIONS,
    COMPARISONS,
    DUTIES,
    EVERY_ACTION,
    LISTED,
    MASKS,
    OPERATORS,
    PROFILE,
    Condition,
    OdrlError,
    Place,
    moment,
)

_WORDS: Final = {
    "Purpose": PURPOSES,
    "LegalBasis": LEGAL_BASES,
    "Role": ROLES,
    "Class": DATA_CLASSES,
    "Personal": PERSONAL_KINDS,
}
_ACTIONS: Final = {odrl: ours for ours, odrl in ACTIONS.items()}
_DUTIES: Final = {odrl: ours for ours, odrl in DUTIES.items()}
_MASKS: Final = {odrl: ours for ours, odrl in MASKS.items()}
_SIGNS: Final = {odrl: sign for sign, odrl in COMPARISONS.items()}
_ZONED: Final = re.compile(r"(?:Z|[+-][0-9]{2}:?[0-9]{2})$", re.ASCII)
_LAW_UID: Final = re.compile(r"urn:sovchain:law:([^:#]+):([0-9]+)")

Refinements = dict[str, list[str | int]]

_POLICY_REFUSED: Final = {
    "obligation": "a law lays duties upon those whom it permits something: state it as a duty of the permission",
    "inheritFrom": "a law stands by itself: write the inherited rules into it",
    "assigner": "a law has no assigner: it is enacted by ballot",
    "assignee": "state it in each rule",
    "target": "state it in each rule",
    "action": "state it in each rule",
}
_RULE_REFUSED: Final = {
    "assigner": "a law has no assigner: it is enacted by ballot",
    "remedy": "a prohibition obliges to nothing here: what it forbids is denied",
    "consequence": "a duty that is overdue suspends the grant, and nothing else",
    "output": "no decision depends on what is made of the data",
    "relation": "a rule is about what its target says",
    "function": "a rule is about what its assignee says",
}
_LOGICAL: Final = dict.fromkeys(("or", "xone", "andSequence"), "write a rule for each")


def import_odrl(document: str | dict[str, Any], header: LawHeader | None = None) -> str:
    """The law's text that an ODRL policy says.

    `document` is JSON-LD in the compact form of the W3C's context. `header` is for policies that are not exported laws; without it, the policy's
    uid, title, jurisdiction and beginning are used. Raises OdrlError with the JSON path of the first thing that does not map. The text
    is what `check_law` takes; clauses are those of exported rules, or numbers.
    """
    value = read_json(document) if isinstance(document, str) else document
    policy = Node(value, "$")
    policy.ignore("@context")
    kind = policy.word("type")
    if kind not in {"Set", "Policy"}:
        raise OdrlError(policy.at("type"), "a law is a Set: an offer, a request or an agreement is between parties")
    if policy.word("profile") not in {None, PROFILE}:
        raise OdrlError(policy.at("profile"), f"its terms are not known: this profile is {PROFILE}")
    own = _header(policy, header)
    permissions, prohibitions = list(policy.each("permission")), list(policy.each("prohibition"))
    _check_conflict(policy, mixed=bool(permissions and prohibitions))
    policy.done(_POLICY_REFUSED)
    if not permissions and not prohibitions:
        raise OdrlError("$", "the policy has no permission and no prohibition")
    clauses: dict[str, str] = {}
    for effect, rules in (("permit", permissions), ("forbid", prohibitions)):
        for rule, path in rules:
            _add(clauses, Node(rule, path), effect, own)
    said = {
        "law": own.law,
        "version": own.version,
        "title": own.title,
        "level": own.level,
        "jurisdiction": own.jurisdiction,
        "effective-from": own.effective_from.isoformat(),
    }
    text = "\n".join([*(f"// {name}: {value}" for name, value in said.items()), "", *clauses.values()])
    try:
        read_law(text)
    except CedarTextError as error:
        raise OdrlError("$", f"the law that it makes is not valid: {error.message}") from None
    return text


def _header(policy: Node, given: LawHeader | None) -> LawHeader:
    uid, title = policy.word("uid"), policy.get("dc:title")
    place, begins = policy.word("sov:jurisdiction"), policy.word("sov:effectiveFrom")
    if given is not None:
        return given
    named = _LAW_UID.fullmatch(uid or "")
    for stated, name in (
        (named, "uid"),
        (title, "dc:title"),
        (place, "sov:jurisdiction"),
        (begins, "sov:effectiveFrom"),
    ):
        if not stated:
            reason = "the law's id, version, title, jurisdiction and beginning are not all stated: give them beside the document"
            raise OdrlError(policy.at(name), reason)
    assert named is not None  # refused above
    if not is_jurisdiction(place or ""):
        raise OdrlError(policy.at("sov:jurisdiction"), "it is no jurisdiction code such as CN, CN-GZ or CN-GZ-520100")
    values = {"law": named[1], "version": int(named[2]), "title": title, "effective_from": begins}
    try:
        return LawHeader.model_validate({**values, "jurisdiction": place, "level": level_of(place or "")})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        names = {"law": "uid", "version": "uid", "title": "dc:title", "effective_from": "sov:effectiveFrom"}
        where = policy.at(names.get(str(first["loc"][0]) if first["loc"] else "", "uid"))
        raise OdrlError(where, first["msg"].removeprefix("Value error, ")) from None


def _check_conflict(policy: Node, *, mixed: bool) -> None:
    conflict = policy.word("conflict")
    if conflict == "prohibit" or (conflict is None and not mixed):
        return
    stated = "none is stated, which means `invalid`" if conflict is None else f"it is `{conflict}`"
    raise OdrlError(policy.at("conflict"), f"in a law a prohibition always wins (`prohibit`): {stated}")


def _add(clauses: dict[str, str], rule: Node, effect: str, header: LawHeader) -> None:
    uid = rule.word("uid") or ""
    clause = unquote(uid.partition("#")[2]) or f"rule {len(clauses) + 1}"
    if clause in clauses:
        raise OdrlError(rule.at("uid"), f"another rule is cited as {clause!a}")
    if not clause.isprintable() or len(clause) > 100 or set(clause) & set('"\\'):
        raise OdrlError(rule.at("uid"), "a clause is cited in at most 100 plain characters, without quotes")
    rule.ignore("type")
    actions = _actions(rule)
    conditions = [
        *_refinements(rule, "assignee"),
        *_refinements(rule, "target"),
        *_constraints(rule, "constraint", "rule"),
    ]
    duties = [_duty(Node(value, path)) for value, path in rule.each("duty")]
    if len(duties) > OBLIGATIONS_MAX:
        raise OdrlError(rule.at("duty"), f"a clause has at most {OBLIGATIONS_MAX} obligations")
    if duties and effect == "forbid":
        raise OdrlError(rule.at("duty"), "a prohibition obliges to nothing")
    rule.done(_RULE_REFUSED)
    cited = f'@law("{header.law}") @version("{header.version}") @clause({_quoted(clause)})'
    if duties:
        cited += f' @obligations("{"; ".join(duties)}")'
    body = " &&\n".join(f"  {_cedar(one)}" for one in conditions)
    when = f"\nwhen {{\n{body}\n}}" if conditions else ""
    clauses[clause] = f"{cited}\n{effect} (principal, {actions}, resource){when};\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _actions(rule: Node) -> str:
    found = []
    for value, path in rule.each("action"):
        if isinstance(value, dict) and not set(value) <= {"@id", "uid", "id"}:
            raise OdrlError(
                path, "a refined action has no counterpart: write what refines it as constraints of the rule"
            )
        word = identified(value, path)
        if word != EVERY_ACTION and word not in _ACTIONS:
            known = ", ".join([EVERY_ACTION, *_ACTIONS])
            raise OdrlError(path, f"`{word}` is no action of laws: known are {known}")
        found.append(word)
    if not found:
        raise OdrlError(rule.at("action"), "a rule has an action")
    if EVERY_ACTION in found:
        return "action"
    named = [f'Action::"{_ACTIONS[word]}"' for word in dict.fromkeys(found)]
    return f"action == {named[0]}" if len(named) == 1 else f"action in [{', '.join(named)}]"


def _refinements(rule: Node, place: Place) -> Iterator[Condition]:
    value = rule.get(place)
    if value is None:
        return
    kind, source = COLLECTIONS[place]
    whom = "organisations" if place == "assignee" else "data sets"
    if not isinstance(value, dict):
        raise OdrlError(
            rule.at(place), f"a law is about all {whom} that its refinements describe: use a {kind} of {source}"
        )
    node = Node(value, rule.at(place))
    if node.word("type") != kind or node.word("source") != source:
        raise OdrlError(node.path, f"a law is about all {whom}: a {kind} whose source is {source}, with refinements")
    yield from _constraints(node, "refinement", place)
    node.done({"uid": f"one {place} by name is not what a law is about"})


def _constraints(node: Node, name: str, place: Place) -> Iterator[Condition]:
    for value, path in node.each(name):
        constraint = Node(value, path)
        if constraint.get("and") is not None:
            yield from _constraints(constraint, "and", place)
        else:
            yield _constraint(constraint, place)
        constraint.ignore("uid", "type")
        constraint.done(
            _LOGICAL | {"dataType": "types follow from the left operand", "unit": "units follow from the left operand"}
        )


def _constraint(node: Node, place: Place) -> Condition:
    for name, reason in _LOGICAL.items():
        if node.get(name) is not None:
            raise OdrlError(node.at(name), f"a law's clause is a conjunction: {reason}")
    operand, operator = node.word("leftOperand"), node.word("operator")
    if operand == "count" and place == "rule":
        raise OdrlError(
            node.at("leftOperand"),
            "a law sets no number of uses; as a refinement of the target, count is that of its rows",
        )
    attribute = next((one for one in ATTRIBUTES if (one.place, one.operand) == (place, operand)), None)
    if attribute is None:
        known = ", ".join(one.operand for one in ATTRIBUTES if one.place == place)
        raise OdrlError(node.at("leftOperand"), f"`{operand}` is no operand of a law here: known are {known}")
    if operator not in OPERATORS[attribute.kind]:
        known = ", ".join(OPERATORS[attribute.kind])
        raise OdrlError(node.at("operator"), f"`{operator}` does not go with {operand}: known are {known}")
    if attribute.kind == "place" and operator in {"eq", "neq"} and not attribute.exact:
        raise OdrlError(node.at("operator"), f"a requester is in a place or not: use isPartOf with {operand}")
    if node.get("rightOperandReference") is not None:
        raise OdrlError(
            node.at("rightOperandReference"), "the value must stand in the document, so that everybody decides alike"
        )
    values = listed(node.get("rightOperand"), node.at("rightOperand"))
    if len(values) > 1 and operator not in LISTED:
        raise OdrlError(node.at("rightOperand"), f"{operator} takes one value")
    for value, path in values:
        _check_value(attribute.kind, attribute.entity, value, path)
    return Condition(attribute, operator, tuple(value for value, _ in values))


def _check_value(kind: str, entity: str, value: str | int, path: str) -> None:
    wrong = isinstance(value, str) if kind == "number" else not isinstance(value, str)
    if wrong or (isinstance(value, int) and not -(2**63) <= value < 2**63):
        raise OdrlError(
            path, "a whole number of 64 bits is expected here" if kind == "number" else "a string is expected here"
        )
    text = str(value)
    if entity in _WORDS and text not in _WORDS[entity]:
        raise OdrlError(path, f"{text!a} is not in the code list: known are {', '.join(_WORDS[entity])}")
    if entity == "Jurisdiction" and not is_jurisdiction(text):
        raise OdrlError(path, f"{text!a} is no jurisdiction code such as CN, CN-GZ or CN-GZ-520100")
    if kind == "time" and (moment(text) is None or _ZONED.search(text) is None):
        raise OdrlError(path, f"{text!a} is no moment with its zone, such as 2026-01-01T00:00:00Z")
    if not text.isprintable() or set(text) & set('"\\') or len(text) > 200:
        raise OdrlError(path, "at most 200 plain characters, without quotes, are expected here")


def _cedar(condition: Condition) -> str:
    attribute, operator = condition.attribute, condition.operator
    values = [_value(attribute.kind, attribute.entity, value) for value in condition.values]
    if operator in LISTED:
        within = f"[{', '.join(values)}].contains({attribute.path})"
        return within if operator == "isAnyOf" else f"!({within})"
    if operator in {"isPartOf", "sov:isNotPartOf"}:
        within = f"{attribute.path} in {values[0]}"
        return within if operator == "isPartOf" else f"!({within})"
    if operator == "hasPart":
        return f"{attribute.path}.contains({values[0]})"
    return f"{attribute.exact or attribute.path} {_SIGNS[operator]} {values[0]}"


def _value(kind: str, entity: str, value: str | int) -> str:
    if kind == "time":
        return f"datetime({_quoted(moment(str(value)) or '')})"
    if isinstance(value, int):
        return str(value)
    return f"{entity}::{_quoted(value)}" if entity else _quoted(value)


def _duty(node: Node) -> str:
    node.ignore("type", "uid")
    value = node.get("action")
    refined: Refinements = {}
    if isinstance(value, dict) and "rdf:value" in value:
        action = Node(value, node.at("action"))
        word = identified(action.get("rdf:value"), action.at("rdf:value"))
        refined = _refined(action)
        action.done({})
    else:
        word = identified(value, node.at("action"))
    if word not in _DUTIES and word not in _MASKS:
        known = ", ".join([*_DUTIES, *_MASKS])
        raise OdrlError(node.at("action"), f"`{word}` is no duty of laws: known are {known}")
    said = _obligation(word, refined, node)
    if refined:
        raise OdrlError(node.at("action"), f"{word} is not refined by {next(iter(refined))}")
    node.done(_RULE_REFUSED)
    try:
        parse_obligations(said)
    except ObligationError as error:
        raise OdrlError(node.path, str(error)) from None
    return said


def _obligation(word: str, refined: Refinements, node: Node) -> str:
    """A duty as an obligation. Takes the refinements that it uses out of `refined`."""
    kind = _DUTIES.get(word, "mask")
    if word in _MASKS:
        columns, argument = refined.pop("sov:column", []), refined.pop("sov:argument", [])
        masked = " ".join(map(str, [_MASKS[word], *argument]))
        return f"mask({', '.join(f'{column}: {masked}' for column in columns)})"
    if kind in {"mask", "fields", "rows"}:
        names = refined.pop("sov:column", [])
        values = refined.pop("sov:value", []) if kind == "rows" else []
        if not names or (kind == "rows" and (len(names) != 1 or not values)):
            raise OdrlError(
                node.at("action"), f"{word} is refined by sov:column" + (" and sov:value" if kind == "rows" else "")
            )
        return f"{kind}({', '.join(map(str, [*names, *values]))})"
    if kind == "quota":
        return f"{kind}({', '.join(map(str, [*refined.pop('count', []), *refined.pop('sov:period', [])]))})"
    if kind == "notify":
        return f"{kind}({_party(node, 'informedParty', 'urn:sovchain:msp:')})"
    if kind == "cosign":
        return f"{kind}({_party(node, 'consentingParty', 'urn:sovchain:seat:')})"
    return f"{kind}({_days(node)})"


def _party(node: Node, name: str, prefix: str) -> str:
    party = node.word(name) or ""
    if not party.startswith(prefix) or not re.fullmatch(r"[A-Za-z0-9.-]{1,64}", party.removeprefix(prefix), re.ASCII):
        raise OdrlError(node.at(name), f"one party is named as {prefix}NAME")
    return party.removeprefix(prefix)


def _refined(action: Node) -> Refinements:
    """The refinements of a duty's action: values by left operand."""
    found: Refinements = {}
    for value, path in action.each("refinement"):
        refinement = Node(value, path)
        operand = refinement.word("leftOperand") or ""
        values = listed(refinement.get("rightOperand"), refinement.at("rightOperand"))
        if operand in found:
            raise OdrlError(path, f"{operand} is stated twice")
        operator = refinement.word("operator")
        if operator != "isAnyOf" and (operator != "eq" or len(values) > 1):
            raise OdrlError(refinement.at("operator"), "a duty is refined by eq for one value, or isAnyOf")
        for one, where in values:
            text = str(one)
            if (
                not text.strip()
                or text != text.strip()
                or not text.isprintable()
                or set(text) & set('"\\,();:')
                or len(text) > 200
            ):
                raise OdrlError(
                    where, "a word is expected here, without quotes, commas, colons, semicolons or brackets"
                )
        refinement.done({})
        found[operand] = [one for one, _ in values]
    return found


def _days(node: Node) -> str:
    found = list(node.each("constraint"))
    if len(found) != 1:
        raise OdrlError(node.at("constraint"), "the duty has a day: one constraint elapsedTime lteq P..D")
    constraint = Node(found[0][0], found[0][1])
    if (constraint.word("leftOperand"), constraint.word("operator")) != ("elapsedTime", "lteq"):
        raise OdrlError(constraint.path, "the duty has a day: elapsedTime lteq P..D")
    days = plain(constraint.get("rightOperand"), constraint.at("rightOperand"))
    constraint.done({})
    if not isinstance(days, str) or re.fullmatch(r"P[1-9][0-9]{0,4}D", days, re.ASCII) is None:
        raise OdrlError(constraint.at("rightOperand"), "whole days are expected here, such as P30D")
    return days

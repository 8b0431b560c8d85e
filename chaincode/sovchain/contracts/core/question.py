"""A request in Cedar's terms: who asks for what, and the entities that its laws may speak of.

A fact that is missing is left out, so that a policy that needs it fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from sovchain.contracts.core.cedar import CedarRequest
from sovchain.contracts.core.codes import DATA_CLASSES, class_rank, is_jurisdiction, jurisdiction_path
from sovchain.contracts.core.facts import DecisionInput, Resource, Subject
from sovchain.contracts.core.gates import effective_class, may_act_as

Entity = dict[str, Any]
"""An entity in Cedar's JSON form."""


def question(request: DecisionInput) -> CedarRequest:
    """The question that a request puts to the laws. It must have a resource."""
    resource = request.resource
    if resource is None:
        raise ValueError("a request without a resource is denied before its laws are asked")
    context: dict[str, Any] = {
        "channel": request.channel,
        "time": {"__extn": {"fn": "datetime", "arg": _cedar_time(request.time)}},
    }
    if request.purpose is not None:
        context["purpose"] = _reference("Purpose", request.purpose)
    if request.legal_basis is not None:
        context["legalBasis"] = _reference("LegalBasis", request.legal_basis)
    if request.destination is not None:
        context["destination"] = _reference("Jurisdiction", request.destination)
    organisation = request.subject.organisation
    named = {organisation.jurisdiction if organisation else None, resource.jurisdiction, request.destination}
    places = sorted(place for place in {*named, *resource.residency} if place is not None)
    return CedarRequest(
        request.subject.identity,
        request.action or "",
        resource.id,
        context,
        lasting=[_data_set(resource, effective_class(request)), *_jurisdictions(tuple(places))],
        passing=_asking(request.subject, request.time),
    )


def _asking(subject: Subject, at: datetime) -> list[Entity]:
    """The requester and its organisation, with no more than certificate and registry allow together."""
    organisation = subject.organisation
    home = organisation.jurisdiction if organisation else None
    who: dict[str, Any] = {"organisation": _reference("Organisation", subject.msp_id)}
    if organisation and subject.role is not None and may_act_as(subject, at):
        who["role"] = _reference("Role", subject.role)
    held = min(class_rank(subject.clearance), class_rank(organisation.clearance if organisation else None))
    if held >= 0:
        who["clearance"] = _reference("Class", DATA_CLASSES[held])
    return [
        _entity("Identity", subject.identity, who, [_uid("Organisation", subject.msp_id)]),
        _entity("Organisation", subject.msp_id, {}, [_uid("Jurisdiction", home)] if home else []),
    ]


def _data_set(resource: Resource, effective: str | None) -> Entity:
    what: dict[str, Any] = {
        "owner": _reference("Organisation", resource.owner),
        "rows": resource.rows,
        "residency": [_reference("Jurisdiction", place) for place in sorted(resource.residency)],
        "purposes": [_reference("Purpose", purpose) for purpose in sorted(resource.purposes)],
    }
    data_class = effective or resource.data_class
    if data_class is not None:
        what["class"] = _reference("Class", data_class)
    if resource.personal is not None:
        what["personal"] = _reference("Personal", resource.personal)
    parents = []
    if resource.jurisdiction is not None:
        what["jurisdiction"] = _reference("Jurisdiction", resource.jurisdiction)
        parents = [_uid("Jurisdiction", resource.jurisdiction)] if resource.jurisdiction else []
    return _entity("DataSet", resource.id, what, parents)


@lru_cache(maxsize=1024)
def _jurisdictions(places: tuple[str, ...]) -> tuple[Entity, ...]:
    """Every named jurisdiction with those that contain it, each a child of the next larger one."""
    nodes: dict[str, list[dict[str, str]]] = {}
    for place in places:
        if is_jurisdiction(place):
            path = jurisdiction_path(place)
            for parent, node in zip((None, *path), path, strict=False):
                nodes[node] = [_uid("Jurisdiction", parent)] if parent else []
    return tuple(_entity("Jurisdiction", node, {}, parents) for node, parents in sorted(nodes.items()))


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _reference(kind: str, name: str) -> dict[str, Any]:
    return {"__entity": {"type": kind, "id": name}}


def _entity(kind: str, name: str, attributes: Mapping[str, Any], parents: Sequence[Mapping[str, str]]) -> Entity:
    return {"uid": _uid(kind, name), "attrs": attributes, "parents": parents}


def _cedar_time(moment: datetime) -> str:
    """Cedar's datetime has milliseconds, cut, not rounded."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

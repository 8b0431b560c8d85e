"""Errors of the network room: one tree, rooted at `NetworkError`.

    NetworkError
      TopologyError            the topology file or object cannot be used (key, line, allowed values)
      UnknownName              an organisation, user, channel or chaincode that the network does not have
      RuntimeUnavailable       the runtime that was asked for is not available in this installation
      InstanceError            the network's directory cannot be used
        DirectoryRefused       it holds other files, or is not a directory
        VersionMismatch        it was written by another format version
        TopologyChanged        it holds a network with another topology
        InstanceDamaged        a file that the network wrote is missing or unreadable
        AlreadyUp              a process runs the network in it
        NotUp                  no process runs the network in it
      PortInUse                another program listens on a port of the network
      NoFreePorts              no block of free ports was found
      ProgramsMissing          Fabric's programs are not on this machine, or are of another version
      EngineUnavailable        there is no Docker engine, or none that can be used
      ImagesMissing            container images are not on this machine
      EngineFailed             the Docker engine or Compose could not do what it was asked to
      NotEnoughSpace           the disk has too little room for what the nodes reserve at their start
      CouchDbUnusable          the CouchDB that a peer is to keep its state in is not named, or cannot be used
      NodeFailed               a peer or an ordering node does not start, or does not answer
      ChaincodeFailed          a chaincode instance does not start
      ConfigurationRefused     a change of a channel's configuration did not come into force
        SignaturesMissing      too few of those whose signatures it takes can sign here
      ChangesRefused           a running network cannot be changed as asked
      ApplyUnderWay            the network is being changed already
      DefinitionRefused        an operator's public definition cannot be used
      DefinitionsMissing       a bundle lacks the definitions of other operators
      BlocksDiffer             a channel's first block is not the one that follows from the definitions
      AuthorityExpired         a root of an organisation has ended
      KeysElsewhere            an organisation's keys are not in this directory
      SnapshotFailed           a snapshot is not taken, is damaged, or a peer does not join from it
      LifecycleError           installing, approving or committing a chaincode failed at a peer or an ordering node

Every error says what happened, why, and what to do: `what`, `why`, `remedy`; `details` holds the fields for programs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any


class NetworkError(Exception):
    """Root of what the network room raises. `what` happened, `why`, and the `remedy`; `details` for programs."""

    def __init__(self, what: str, why: str, remedy: str, **details: Any) -> None:
        super().__init__(f"{what}: {why}; {remedy}")
        self.what = what
        self.why = why
        self.remedy = remedy
        self.details: Mapping[str, Any] = details


@dataclass(frozen=True)
class TopologyProblem:
    """One thing that is wrong with a topology.

    `key` is the path of the key ("channels[1].members[0]"), `line` its line in the YAML file (from 1; None when the
    topology did not come from a file), `allowed` the values that would be accepted, if they can be listed, `rule` the
    name of the rule of `checks` that is broken; empty: the key itself has no such value.
    """

    key: str
    problem: str
    remedy: str = ""
    allowed: tuple[str, ...] = ()
    rule: str = ""
    line: int | None = None

    @property
    def act(self) -> str:
        """What to do about it."""
        choice = f"allowed: {', '.join(self.allowed)}" if self.allowed else ""
        return "; ".join(filter(None, (self.remedy, choice))) or "correct the value"


class TopologyError(NetworkError):
    """The topology cannot be used.

    `problems` are all that were found, in the order of the file `source`; `key`, `problem`, `line`, `allowed` and `rule`
    are those of the first (see `TopologyProblem`).
    """

    def __init__(
        self,
        key: str,
        problem: str,
        *,
        allowed: Sequence[str] = (),
        line: int | None = None,
        source: Path | str | None = None,
        remedy: str = "",
        rule: str = "",
        others: Sequence[TopologyProblem] = (),
    ) -> None:
        first = TopologyProblem(key, problem, remedy, tuple(allowed), rule, line)
        self.problems = (first, *others)
        self.source = source
        more = f" (and {len(others)} more problem{'s' if len(others) > 1 else ''})" if others else ""
        super().__init__(
            self.place_of(first),
            f"{problem}{more}",
            first.act,
            key=key,
            line=line,
            source=str(source) if source else None,
            allowed=list(allowed),
            problems=[asdict(found) for found in self.problems],
        )
        self.key = key
        self.problem = problem
        self.allowed = tuple(allowed)
        self.line = line
        self.rule = rule

    @classmethod
    def of(cls, problems: Sequence[TopologyProblem], source: Path | str | None = None) -> TopologyError:
        """Make the error of one or more problems."""
        first, *others = problems
        return cls(
            first.key, first.problem, allowed=first.allowed, line=first.line, source=source, remedy=first.remedy,
            rule=first.rule, others=others,
        )  # fmt: skip

    def place_of(self, problem: TopologyProblem) -> str:
        """Say what cannot be used and where a problem is."""
        place = f" in {self.source}" if self.source else ""
        place += f", line {problem.line}" if problem.line else ""
        return f"the topology cannot be used: {problem.key or 'the document'}{place}"


class UnknownName(NetworkError):
    """The network has no `kind` (organization, user, channel, chaincode) of this `name`; `known` are those it has."""

    def __init__(self, kind: str, name: str, known: Sequence[str]) -> None:
        super().__init__(
            f"unknown {kind} {name!r}",
            f"the network has no {kind} of this name",
            f"use one of: {', '.join(known) or 'none'}",
            kind=kind,
            name=name,
            known=list(known),
        )
        self.kind = kind
        self.name = name
        self.known = tuple(known)


class RuntimeUnavailable(NetworkError):
    """The runtime `name` is not available; `available` are the names that are."""

    def __init__(self, name: str, why: str, available: Sequence[str]) -> None:
        super().__init__(
            f"runtime {name!r} is not available",
            why,
            f"use one of: {', '.join(available)}",
            name=name,
            available=list(available),
        )
        self.name = name
        self.available = tuple(available)


class InstanceError(NetworkError):
    """The network's `directory` cannot be used."""

    def __init__(self, directory: Path, what: str, why: str, remedy: str, **details: Any) -> None:
        super().__init__(what, why, remedy, directory=str(directory), **details)
        self.directory = directory


class DirectoryRefused(InstanceError):
    """The directory holds something else, or is no directory; nothing in it was touched."""

    def __init__(self, directory: Path, why: str) -> None:
        super().__init__(directory, f"cannot use {directory} for a network", why, "give a new or an empty directory")


class SeedRefused(NetworkError):
    """A seed cannot be used: for this runtime, in this directory, or as it is."""


class OriginRefused(NetworkError):
    """The keys of the network in directory `origin` cannot be taken over."""

    def __init__(self, origin: Path, why: str, remedy: str) -> None:
        super().__init__(f"the keys of {origin} cannot be taken over", why, remedy, origin=str(origin))
        self.origin = origin


class VersionMismatch(InstanceError):
    """The directory was written in format `found`; this version reads `supported`. Nothing in it was touched."""

    def __init__(self, directory: Path, found: object, supported: int) -> None:
        super().__init__(
            directory,
            f"cannot use {directory}: another format version",
            f"it has format {found} and this version of sovchain reads format {supported}",
            "open it with the version of sovchain that wrote it, or bring the network up in an empty directory",
            found=found,
            supported=supported,
        )
        self.found = found
        self.supported = supported


class TopologyChanged(InstanceError):
    """The directory holds a network with another topology; `difference` names the first part that differs."""

    def __init__(self, directory: Path, difference: str) -> None:
        super().__init__(
            directory,
            f"cannot use {directory} with this topology",
            f"it holds a network with another topology: {difference}",
            "leave the topology out to use the stored one, bring it up so and change it there (sovchain plan, sovchain apply), "
            "or bring the network up in an empty directory",
            difference=difference,
        )
        self.difference = difference


class InstanceDamaged(InstanceError):
    """A file that the network wrote, `path`, is missing or cannot be read."""

    def __init__(self, directory: Path, path: Path, why: str) -> None:
        super().__init__(
            directory,
            f"cannot use {directory}: {path} is damaged",
            why,
            "restore the directory from a copy, or bring the network up in an empty directory",
            path=str(path),
        )
        self.path = path


class AlreadyUp(InstanceError):
    """The process `pid` runs the network in the directory (0 when it has not written its number yet)."""

    def __init__(self, directory: Path, pid: int) -> None:
        super().__init__(
            directory,
            f"the network in {directory} is already up",
            f"process {pid or '(starting)'} runs it",
            f"use it as it is, or stop it first (sovchain down --dir {directory})",
            pid=pid,
        )
        self.pid = pid


class NotUp(InstanceError):
    """No process runs the network in the directory, or it is still starting."""

    def __init__(self, directory: Path, why: str = "no process runs it") -> None:
        super().__init__(
            directory,
            f"the network in {directory} is not up",
            why,
            f"bring it up first (sovchain up --dir {directory})",
        )


class PortInUse(NetworkError):
    """Another program listens on `port`, which `service` of the network needs."""

    def __init__(self, port: int, service: str, why: str = "another program listens there") -> None:
        super().__init__(
            f"port {port} is in use",
            f"{service} needs it and {why}",
            "stop that program, or give another port base (ports.base in the topology)",
            port=port,
            service=service,
        )
        self.port = port
        self.service = service


class NoFreePorts(NetworkError):
    """No block of `count` free neighbouring ports was found on the loopback address."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"no block of {count} free ports was found",
            "every candidate between 20000 and 32000 had a port in use",
            "stop other networks, or give a port base (ports.base in the topology)",
            count=count,
        )
        self.count = count


class ProgramsMissing(NetworkError):
    """The programs `names` of Fabric, or of another `product`, were not found; `looked` says what each place holds."""

    def __init__(
        self, names: Sequence[str], version: str, looked: Mapping[str, str], *, product: str = "Fabric"
    ) -> None:
        places = "; ".join(f"{place}: {found}" for place, found in looked.items())
        repository = product.lower().replace(" ", "-")
        otherwise = (
            "set fabric_version in the topology to the release that is installed"
            if product == "Fabric"
            else "leave certificate_authority out of the topology"
        )
        super().__init__(
            f"the program{'s' if len(names) > 1 else ''} {' and '.join(names)} of {product} {version} {'were' if len(names) > 1 else 'was'} not found",
            f"looked in {places}" if places else "there is no place to look in",
            f"install the release {version} of hyperledger/{repository} and name its bin folder in SOVCHAIN_FABRIC_BIN,"
            f" or {otherwise}",
            names=list(names),
            version=version,
            looked=dict(looked),
        )
        self.names = tuple(names)
        self.version = version
        self.looked = dict(looked)


class EngineUnavailable(NetworkError):
    """Docker cannot be used on this machine, for the reason `why`."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__("the docker runtime cannot be used", why, f"{remedy}, or use another runtime")


class ImagesMissing(NetworkError):
    """The container images `images` are not on this machine. Nothing is pulled or built by itself.

    `images` has, for each, the command that brings it.
    """

    def __init__(self, images: Mapping[str, str]) -> None:
        names = ", ".join(images)
        super().__init__(
            f"container image{'s' if len(images) > 1 else ''} missing",
            f"{names} {'are' if len(images) > 1 else 'is'} not on this machine",
            f"get {'them' if len(images) > 1 else 'it'}: {'; '.join(images.values())}",
            images=dict(images),
        )
        self.images = dict(images)


class EngineFailed(NetworkError):
    """The command `command` (such as "docker stop") failed; `output` is all that it complained of."""

    def __init__(self, command: str, output: str) -> None:
        lines = [line.strip() for line in output.splitlines() if line.strip()]
        told = [line for line in lines if line.lower().startswith("error")] or lines[-1:]
        super().__init__(
            f"{command} failed",
            told[0][:500] if told else "it did not say why",
            "correct the cause and bring the network up again: what is done already is kept",
            command=command,
        )
        self.command = command
        self.output = output


class NotEnoughSpace(NetworkError):
    """The disk of `directory` has `free_bytes`, and the nodes reserve `needed_bytes` at their start."""

    def __init__(self, directory: Path, needed_bytes: int, free_bytes: int) -> None:
        mib = 1024 * 1024
        super().__init__(
            f"the disk of {directory} is too full",
            f"the nodes reserve {needed_bytes // mib} MiB and {free_bytes // mib} MiB are free",
            "make room, or choose a directory on another disk",
            directory=str(directory),
            needed_bytes=needed_bytes,
            free_bytes=free_bytes,
        )
        self.directory = directory
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes


class CouchDbUnusable(NetworkError):
    """The CouchDB that a peer is to keep its state in is not named, cannot be reached, or does not take the account."""


class NodeFailed(NetworkError):
    """The peer or ordering node `host` does not start or does not answer; its own words are in `log`."""

    def __init__(self, host: str, what: str, why: str, log: Path) -> None:
        super().__init__(f"{host} {what}", why, f"read {log}", host=host, log=str(log))
        self.host = host
        self.log = log


class ChaincodeFailed(NetworkError):
    """The chaincode `instance` does not start; its own words are in `log`."""

    def __init__(self, instance: str, why: str, log: Path) -> None:
        super().__init__(
            f"chaincode instance {instance} does not start",
            why,
            f"read {log}",
            instance=instance,
            log=str(log),
        )
        self.instance = instance
        self.log = log


class SnapshotFailed(NetworkError):
    """A snapshot of a channel's state is not taken, is damaged, or a peer does not join from it."""


class LifecycleError(NetworkError):
    """A step of a chaincode's lifecycle, or of joining a node to a channel, failed.

    `step` is one of install, query, approve, readiness, commit, order, list, join, leave, snapshot; `address` and `msp_id` name the node that
    refused, `status` is its status number (of the chaincode response, of gRPC or of the ordering node), `channel` and
    `chaincode` say what it was about.
    """

    def __init__(
        self, step: str, why: str, *, address: str, msp_id: str, status: int, channel: str = "", chaincode: str = ""
    ) -> None:
        act = {"query": "look up", "readiness": "see agreement on"}.get(step, step)
        on = f" on channel {channel}" if channel else ""
        if step in ("join", "leave", "list", "snapshot"):
            what = f"cannot {step} channel {channel}" if channel else f"cannot {step} channels"
        else:
            what = f"cannot {act} chaincode {chaincode}{on}" if chaincode else f"cannot {act} chaincodes{on}"
        super().__init__(
            what,
            f"{msp_id} at {address} answered {status}: {why}",
            "correct the cause and bring the network up again: what is done already is kept",
            step=step,
            address=address,
            msp_id=msp_id,
            status=status,
            channel=channel,
            chaincode=chaincode,
        )
        self.step = step
        self.address = address
        self.msp_id = msp_id
        self.status = status
        self.channel = channel
        self.chaincode = chaincode


class ConfigurationRefused(NetworkError):
    """A change of the configuration of `channel` did not come into force; `address` is the node that says so, if one does."""

    def __init__(
        self,
        channel: str,
        why: str,
        *,
        address: str = "",
        remedy: str = "correct the cause and try again",
        **details: Any,
    ) -> None:
        super().__init__(
            f"the configuration of channel {channel} was not changed",
            f"{address} answered: {why}" if address else why,
            remedy,
            channel=channel,
            address=address,
            **details,
        )
        self.channel = channel
        self.address = address


class SignaturesMissing(ConfigurationRefused):
    """Too few can sign here: `element` is guarded by `policy`, `signed` have signed, and `missing` (MSP ids) would do."""

    def __init__(self, channel: str, element: str, policy: str, signed: Sequence[str], missing: Sequence[str]) -> None:
        lacking = (
            f"an administrator of {' and of '.join(missing)}" if missing else "administrators whose role it asks for"
        )
        super().__init__(
            channel,
            f"{element} is guarded by {policy}, which lacks {lacking} (signed: {', '.join(signed) or 'nobody'})",
            remedy="make the change where the keys of their administrators are",
            element=element,
            policy=policy,
            signed=list(signed),
            missing=list(missing),
        )
        self.element = element
        self.policy = policy
        self.signed = tuple(signed)
        self.missing = tuple(missing)


@dataclass(frozen=True)
class Refusal:
    """One change that a running network does not take: its `key` in the topology, `why` not, and what to do instead."""

    key: str
    why: str
    remedy: str


class ChangesRefused(NetworkError):
    """A running network cannot be changed as asked; `refusals` are all reasons, and nothing was touched."""

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        first, *others = refusals
        more = f" (and {len(others)} more: {', '.join(other.key for other in others)})" if others else ""
        super().__init__(
            f"the running network cannot be changed: {first.key}{more}",
            first.why,
            first.remedy,
            refusals=[asdict(refusal) for refusal in refusals],
        )
        self.refusals = tuple(refusals)


class ApplyUnderWay(NetworkError):
    """The network in `directory` is being changed already."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"the network in {directory} is being changed already",
            "another apply is under way",
            "wait for its end, then look again (sovchain plan)",
            directory=str(directory),
        )
        self.directory = directory


class UpdateRefused(NetworkError):
    """A file with an update of a channel's configuration, from `source`, cannot be used."""

    def __init__(self, source: str, why: str, remedy: str = "have it proposed and signed again") -> None:
        super().__init__(f"the update {source} is refused", why, remedy, source=source)
        self.source = source


class DefinitionRefused(NetworkError):
    """A public definition of an operator, from `source`, cannot be used."""

    def __init__(self, source: str, why: str, remedy: str = "have its operator make and send it again") -> None:
        super().__init__(f"the definition {source} is refused", why, remedy, source=source)
        self.source = source


class DefinitionsMissing(NetworkError):
    """A bundle has no definitions of `operators` yet, without which it has no channels to run."""

    def __init__(self, directory: Path, operators: Sequence[str]) -> None:
        names = ", ".join(operators)
        super().__init__(
            f"the bundle in {directory} is not complete",
            f"the public definition{'s' if len(operators) > 1 else ''} of {names} {'are' if len(operators) > 1 else 'is'} missing",
            f"get it from {names} and add it: sovchain network bundle --output {directory} --public FILE",
            directory=str(directory),
            operators=list(operators),
        )
        self.directory = directory
        self.operators = tuple(operators)


class BlocksDiffer(NetworkError):
    """The first block of `channel` that somebody made is not the one that follows from the definitions here."""

    def __init__(self, channel: str, expected: str, found: str) -> None:
        super().__init__(
            f"the first block of channel {channel} differs",
            f"its hash is {found}, and the definitions here give {expected}",
            "compare the digests of the definitions with each operator: one of them is not the same on both sides",
            channel=channel,
            expected=expected,
            found=found,
        )
        self.channel = channel
        self.expected = expected
        self.found = found


class AuthorityExpired(NetworkError):
    """A root of `organization` ended at `ended`: nothing that it signs now would be valid."""

    def __init__(self, organization: str, kind: str, ended: datetime) -> None:
        what = "identities" if kind == "ca" else "TLS"
        super().__init__(
            f"cannot certify anything for {organization}",
            f"its root for {what} ended at {ended:%Y-%m-%d %H:%M} UTC",
            "make a new root, add it to the organisation's MSP in every channel beside the old one, then reissue",
            organization=organization,
            ended=ended.isoformat(),
        )
        self.organization = organization
        self.ended = ended


class KeysElsewhere(NetworkError):
    """The keys of `organization` are not in this directory: it keeps them itself."""

    def __init__(self, organization: str, here: Sequence[str]) -> None:
        super().__init__(
            f"cannot act for {organization}",
            "its keys are not in this directory; it keeps them itself",
            f"act for {', '.join(here) or 'an organisation of this directory'}, or ask {organization}",
            organization=organization,
            here=list(here),
        )
        self.organization = organization

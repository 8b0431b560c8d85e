"""Bring networks up: topology, crypto material, channels, chaincode lifecycle, runtimes.

General layout:
    topology.py      what a network consists of; the default network
    topologyfile.py  topologies in YAML
    checks.py        the rules that span several parts of a topology
    certificates.py  certificates as cryptogen makes them
    material.py      the folders of keys and certificates (cryptogen's layout); `material_layout.py` says what is in them
    material_enrolment.py, material_revocation.py   certificates from a Fabric CA; revocation lists
    authorities.py   Fabric CA servers
    identities.py    listing, renewing and revoking
    export.py        what a client of an organisation needs
    definitions.py   what operators who keep their own keys tell each other
    bundle.py        one operator's part of a network that spans hosts
    agreement.py     agreeing on chaincodes in such a network
    files.py         writing files that are whole or absent
    genesis.py       the first block of each channel
    profiles.py      Fabric's common connection profiles
    nodes.py         an administrator's conversations with peers and ordering nodes
    lifecycle.py     install, approve and commit chaincode on any Fabric peers
    instance.py      the directory of a network: format, lock, process number, ports
    ports.py         free ports
    seed.py          keys that come from a seed, for golden tests; `origin.py` takes over those of another network
    logs.py          the network's own log
    startup.py       the steps of bringing a network up
    upgrades.py      the topology after an upgrade of a chaincode
    nodelogs.py      reading the logs of all nodes as one
    snapshots.py     snapshots of a channel's state: taken, compared, joined from
    transition.py    what a running network does not take, and what exists in between; `members.py` its short forms
    plan.py          what differs from a topology, as steps; `plan_look.py` asks the nodes, `differences.py` has the words
    apply.py         taking the steps; `control.py` is how another process asks for it
    configuration.py changing a channel's configuration
    network.py       `Network`: up, attach, connect, deploy, down
    observe.py       looking at nodes, channels, chaincodes and certificates; `observation.py` holds what was seen
    participation.py an ordering node's administration of its channels
    runtimes/        what a network runs on: the embedded ledger, real Fabric programs
"""

from __future__ import annotations

from sovchain.network.apply import Applied
from sovchain.network.errors import (
    AlreadyUp,
    ApplyUnderWay,
    AuthorityExpired,
    BlocksDiffer,
    ChaincodeFailed,
    ChangesRefused,
    ConfigurationRefused,
    CouchDbUnusable,
    DefinitionRefused,
    DefinitionsMissing,
    DirectoryRefused,
    EngineFailed,
    EngineUnavailable,
    ImagesMissing,
    InstanceDamaged,
    InstanceError,
    KeysElsewhere,
    LifecycleError,
    NetworkError,
    NodeFailed,
    NoFreePorts,
    NotEnoughSpace,
    NotUp,
    OriginRefused,
    PortInUse,
    ProgramsMissing,
    RuntimeUnavailable,
    SeedRefused,
    SignaturesMissing,
    SnapshotFailed,
    TopologyChanged,
    TopologyError,
    UnknownName,
    UpdateRefused,
    VersionMismatch,
)
from sovchain.network.instance import Status
from sovchain.network.network import Network
from sovchain.network.observation import Observation
from sovchain.network.plan import Plan, Step
from sovchain.network.startup import Progress
from sovchain.network.topology import Topology, default_topology
from sovchain.network.topologyfile import load_topology, parse_topology

__all__ = [
    "AlreadyUp",
    "Applied",
    "ApplyUnderWay",
    "AuthorityExpired",
    "BlocksDiffer",
    "ChaincodeFailed",
    "ChangesRefused",
    "ConfigurationRefused",
    "CouchDbUnusable",
    "DefinitionRefused",
    "DefinitionsMissing",
    "DirectoryRefused",
    "EngineFailed",
    "EngineUnavailable",
    "ImagesMissing",
    "InstanceDamaged",
    "InstanceError",
    "KeysElsewhere",
    "LifecycleError",
    "Network",
    "NetworkError",
    "NoFreePorts",
    "NodeFailed",
    "NotEnoughSpace",
    "NotUp",
    "Observation",
    "OriginRefused",
    "Plan",
    "PortInUse",
    "ProgramsMissing",
    "Progress",
    "RuntimeUnavailable",
    "SeedRefused",
    "SignaturesMissing",
    "SnapshotFailed",
    "Status",
    "Step",
    "Topology",
    "TopologyChanged",
    "TopologyError",
    "UnknownName",
    "UpdateRefused",
    "VersionMismatch",
    "default_topology",
    "load_topology",
    "parse_topology",
]

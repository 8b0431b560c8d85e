"""What a peer and an ordering node are configured with.

Fabric reads `core.yaml` and `orderer.yaml` and lets the environment override a key, but only a key that is in the file
(viper's AutomaticEnv over `sampleconfig/` of Fabric). So each node, native or in a container, gets its whole tree as a
file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from sovchain.network.topology import Topology

Settings = Mapping[str, Any]

MESSAGE_MAX_BYTES: Final = 100 * 1024 * 1024
_GOSSIP_INTERVAL: Final = "1s"
"""How often peers tell one another what they have: discovery of a new chaincode waits for it (default 4s)."""
_AUTH_FILTERS: Final = {
    "2.5": ("DefaultAuth", "ExpirationCheck"),
    "3.1": ("DefaultAuth", "ExpirationCheck", "TimeWindowCheck"),
}
"""core/handlers/library/library.go: a peer that does not know a filter does not start."""
_BCCSP: Final[Settings] = {"Default": "SW", "SW": {"Hash": "SHA2", "Security": 256, "FileKeyStore": {"KeyStore": None}}}


@dataclass(frozen=True)
class NodePlace:
    """Where a node finds its things and where it is found.

    Attributes:
        host: host under which other nodes reach it.
        listen: address that it binds.
        port: port of its main service.
        operations_port: port of health and metrics.
        second_port: port of the administration of an ordering node, or of the chaincode listener of a peer.
        msp, tls: folders of its MSP and of its TLS certificate, key and root.
        data: folder of what it keeps.
        metrics_roots: files with the roots of those who may read its metrics, besides its own organisation.
        main_listen: address that it binds for its main service, which other hosts use; empty: `listen`.
    """

    host: str
    listen: str
    port: int
    operations_port: int
    second_port: int
    msp: str
    tls: str
    data: str
    metrics_roots: Sequence[str] = ()
    main_listen: str = ""


@dataclass(frozen=True)
class CouchDb:
    """Where a peer keeps its state, if not in LevelDB: "host:port" and an account there."""

    address: str
    username: str
    password: str = field(repr=False)


def orderer_settings(msp_id: str, place: NodePlace) -> Settings:
    """The configuration of an ordering node (`orderer/common/localconfig/config.go` in Fabric)."""
    certificate, key, root = (f"{place.tls}/{name}" for name in ("server.crt", "server.key", "ca.crt"))
    server = {"Enabled": True, "Certificate": certificate, "PrivateKey": key}
    return {
        "General": {
            "ListenAddress": place.main_listen or place.listen,
            "ListenPort": place.port,
            "LocalMSPID": msp_id,
            "LocalMSPDir": place.msp,
            "BootstrapMethod": "none",
            "TLS": {**server, "RootCAs": [root], "ClientAuthRequired": False},
            "Keepalive": {"ServerMinInterval": "60s", "ServerInterval": "7200s", "ServerTimeout": "20s"},
            "MaxRecvMsgSize": MESSAGE_MAX_BYTES,
            "MaxSendMsgSize": MESSAGE_MAX_BYTES,
            "Cluster": {
                "SendBufferSize": 100,
                "ClientCertificate": certificate,
                "ClientPrivateKey": key,
                "RootCAs": [root],
            },
            "Profile": {"Enabled": False, "Address": "127.0.0.1:0"},
            "BCCSP": _BCCSP,
            "Authentication": {"TimeWindow": "15m"},
        },
        "FileLedger": {"Location": f"{place.data}/ledger"},
        "Consensus": {"WALDir": f"{place.data}/wal", "SnapDir": f"{place.data}/snapshot"},
        "Debug": {"BroadcastTraceDir": None, "DeliverTraceDir": None},
        "Operations": {
            "ListenAddress": f"{place.listen}:{place.operations_port}",
            "TLS": {**server, "ClientAuthRequired": False, "ClientRootCAs": [root, *place.metrics_roots]},
        },
        "Metrics": {"Provider": "prometheus"},
        "Admin": {
            "ListenAddress": f"{place.listen}:{place.second_port}",
            # Who holds a certificate of the organisation's TLS authority administers the node's channels.
            "TLS": {**server, "ClientAuthRequired": True, "ClientRootCAs": [root]},
        },
        # A block of a large channel configuration goes beyond the default of 1 MB.
        "ChannelParticipation": {"Enabled": True, "MaxRequestBodySize": "10 MB"},
    }


def peer_settings(
    name: str,
    topology: Topology,
    msp_id: str,
    place: NodePlace,
    *,
    builder: str,
    bootstrap: str,
    couchdb: CouchDb | None = None,
) -> Settings:
    """The configuration of a peer (`core/peer/config.go`, `gossip/gossip/config.go`, `core/ledger` in Fabric).

    `builder` is the folder of the external builder of chaincode that runs as a service; `bootstrap` the address of a
    peer of the same organisation, its own where it is alone; without `couchdb` the state is kept in LevelDB.
    """
    address = f"{place.host}:{place.port}"
    certificate, key, root = (f"{place.tls}/{file}" for file in ("server.crt", "server.key", "ca.crt"))
    server = {"enabled": True, "cert": {"file": certificate}, "key": {"file": key}, "clientAuthRequired": False}
    return {
        "peer": {
            "id": name,
            "networkId": topology.name,
            "address": address,
            "listenAddress": f"{place.main_listen or place.listen}:{place.port}",
            "chaincodeAddress": f"{place.host}:{place.second_port}",
            "chaincodeListenAddress": f"{place.listen}:{place.second_port}",
            "localMspId": msp_id,
            "localMspType": "bccsp",
            "mspConfigPath": place.msp,
            "fileSystemPath": place.data,
            "tls": {**server, "rootcert": {"file": root}, "clientRootCAs": {"files": [root]}},
            "BCCSP": _BCCSP,
            "authentication": {"timewindow": "15m"},
            "gossip": _gossip(address, bootstrap),
            "handlers": _handlers(topology.fabric_version),
            **_PEER_SERVICES,
        },
        # Without an endpoint the peer neither builds in Docker nor asks for its health.
        "vm": {"endpoint": ""},
        "chaincode": {
            "externalBuilders": [{"name": "ccaas_builder", "path": builder, "propagateEnvironment": []}],
            **_CHAINCODE,
        },
        "ledger": {**_ledger(couchdb), "snapshots": {"rootDir": f"{place.data}/snapshots"}},
        "operations": {
            "listenAddress": f"{place.listen}:{place.operations_port}",
            "tls": {**server, "clientRootCAs": {"files": [root, *place.metrics_roots]}},
        },
        "metrics": {"provider": "prometheus"},
    }


_PEER_SERVICES: Final[Settings] = {
    "gateway": {"enabled": True, "endorsementTimeout": "30s", "broadcastTimeout": "30s", "dialTimeout": "2m"},
    "keepalive": {
        "interval": "7200s",
        "timeout": "20s",
        "minInterval": "60s",
        "client": {"interval": "60s", "timeout": "20s"},
        "deliveryClient": {"interval": "60s", "timeout": "20s"},
    },
    "client": {"connTimeout": "3s"},
    "deliveryclient": {
        "blockGossipEnabled": False,
        "reconnectTotalTimeThreshold": "3600s",
        "connTimeout": "3s",
        "reConnectBackoffThreshold": "10s",
        "blockCensorshipTimeoutKey": "30s",
        "minimalReconnectInterval": "100ms",
        "policy": "cluster",
    },
    "discovery": {
        "enabled": True,
        "authCacheEnabled": True,
        "authCacheMaxSize": 1000,
        "authCachePurgeRetentionRatio": 0.75,
        "orgMembersAllowedAccess": False,
    },
    "limits": {"concurrency": {"endorserService": 2500, "deliverService": 2500, "gatewayService": 500}},
    "maxRecvMsgSize": MESSAGE_MAX_BYTES,
    "maxSendMsgSize": MESSAGE_MAX_BYTES,
}
_CHAINCODE: Final[Settings] = {
    "installTimeout": "300s",
    "startuptimeout": "60s",
    "executetimeout": "30s",
    "mode": "net",
    "keepalive": 0,
    "system": {"_lifecycle": "enable", "cscc": "enable", "lscc": "enable", "qscc": "enable"},
    "logging": {"level": "info", "shim": "warning"},
    "runtimeParams": {
        "useWriteBatch": True,
        "maxSizeWriteBatch": 1000,
        "useGetMultipleKeys": True,
        "maxSizeGetMultipleKeys": 1000,
    },
}
_LEDGER: Final[Settings] = {
    "history": {"enableHistoryDatabase": True},
    "pvtdataStore": {
        "collElgProcMaxDbBatchSize": 5000,
        "collElgProcDbBatchesInterval": 1000,
        "deprioritizedDataReconcilerInterval": "60m",
        "purgeInterval": 100,
        "purgedKeyAuditLogging": True,
    },
}


def _ledger(couchdb: CouchDb | None) -> Settings:
    account = {"username": couchdb.username, "password": couchdb.password} if couchdb else {}
    return {
        "state": {
            "stateDatabase": "CouchDB" if couchdb else "goleveldb",
            "totalQueryLimit": 100_000,
            "couchDBConfig": {
                "couchDBAddress": couchdb.address if couchdb else "127.0.0.1:5984",
                "username": None,
                "password": None,
                **account,
                "maxRetries": 3,
                "maxRetriesOnStartup": 10,
                "requestTimeout": "35s",
                "internalQueryLimit": 1000,
                "maxBatchUpdateSize": 1000,
                "createGlobalChangesDB": False,
                "cacheSize": 64,
            },
        },
        **_LEDGER,
    }


def _handlers(version: str) -> Settings:
    return {
        "authFilters": [{"name": name} for name in _AUTH_FILTERS[version]],
        "decorators": [{"name": "DefaultDecorator"}],
        "endorsers": {"escc": {"name": "DefaultEndorsement", "library": None}},
        "validators": {"vscc": {"name": "DefaultValidation", "library": None}},
    }


def _gossip(address: str, bootstrap: str) -> Settings:
    """Every peer fetches blocks from the ordering nodes; gossip carries private data and what peers tell of themselves."""
    return {
        "bootstrap": bootstrap,
        "endpoint": address,
        "externalEndpoint": address,
        "useLeaderElection": False,
        "orgLeader": True,
        "membershipTrackerInterval": "5s",
        "maxBlockCountToStore": 10,
        "maxPropagationBurstLatency": "10ms",
        "maxPropagationBurstSize": 10,
        "propagateIterations": 1,
        "propagatePeerNum": 3,
        "pullInterval": _GOSSIP_INTERVAL,
        "pullPeerNum": 3,
        "requestStateInfoInterval": _GOSSIP_INTERVAL,
        "publishStateInfoInterval": _GOSSIP_INTERVAL,
        "publishCertPeriod": "10s",
        "skipBlockVerification": False,
        # A peer that has not joined the channel yet cannot be trusted yet: give up soon, and call again.
        "dialTimeout": "1s",
        "connTimeout": "2s",
        "recvBuffSize": 20,
        "sendBuffSize": 200,
        "digestWaitTime": "500ms",
        "requestWaitTime": "700ms",
        "responseWaitTime": "900ms",
        "aliveTimeInterval": _GOSSIP_INTERVAL,
        "aliveExpirationTimeout": "5s",
        "reconnectInterval": _GOSSIP_INTERVAL,
        "maxConnectionAttempts": 120,
        "msgExpirationFactor": 20,
        "election": {
            "startupGracePeriod": "15s",
            "membershipSampleInterval": "1s",
            "leaderAliveThreshold": "10s",
            "leaderElectionDuration": "5s",
        },
        "pvtData": {
            "pullRetryThreshold": "60s",
            "transientstoreMaxBlockRetention": 20_000,
            "pushAckTimeout": "3s",
            "btlPullMargin": 10,
            "reconcileBatchSize": 10,
            "reconcileSleepInterval": "1m",
            "reconciliationEnabled": True,
            # The data of an invalid transaction exists nowhere perhaps, and the commit would wait a minute for it.
            "skipPullingInvalidTransactionsDuringCommit": True,
            "implicitCollectionDisseminationPolicy": {"requiredPeerCount": 0, "maxPeerCount": 1},
        },
        "state": {"enabled": False},
    }


def as_yaml(settings: Settings) -> bytes:
    """The whole tree as `core.yaml` or `orderer.yaml`."""
    return yaml.safe_dump(dict(settings), sort_keys=False).encode()

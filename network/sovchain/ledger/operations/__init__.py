"""What administrators of a node call over HTTPS: health, version, metrics and log levels, and an ordering node's channels.

https.py          the server: HTTP/1.1 over TLS, with limits
metrics.py        Fabric's metrics, and how they are written for Prometheus
logspec.py        Fabric's logging specification
system.py         /healthz, /version, /metrics, /logspec (core/operations in Fabric)
participation.py  /participation/v1/channels (orderer/common/channelparticipation)
"""

from __future__ import annotations

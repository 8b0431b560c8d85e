"""The surface of fabric-sdk-py (`hfc`) 1.0.0 over the Gateway, for programs that were written for it.

    from sovchain.client.hfc import Client

    cli = Client(net_profile="network.json")
    cli.new_channel("city")
    user = cli.get_user("org1.example.com", "User1")
    answer = await cli.chaincode_query(user, "city", ["peer0.org1.example.com"], ["a"], "basic", fcn="get")

hfc itself cannot be installed on Python 3.11 or later. Names, parameters and return shapes are hfc's; endorsing, ordering
and waiting are the gateway's. docs/client/hfc.md lists every public method as same, changed or gone, with the reason. New
code is better off with `sovchain.client`.
"""

from __future__ import annotations

from sovchain.client.hfc.ca import (
    AffiliationService,
    CAService,
    CertificateService,
    Enrollment,
    IdentityService,
    ca_service,
)
from sovchain.client.hfc.client import Client
from sovchain.client.hfc.errors import CaServiceError, GoneInGateway, HfcError
from sovchain.client.hfc.eventhub import ChannelEventHub
from sovchain.client.hfc.objects import Channel, Orderer, Organization, Peer, User

__all__ = [
    "AffiliationService",
    "CAService",
    "CaServiceError",
    "CertificateService",
    "Channel",
    "ChannelEventHub",
    "Client",
    "Enrollment",
    "GoneInGateway",
    "HfcError",
    "IdentityService",
    "Orderer",
    "Organization",
    "Peer",
    "User",
    "ca_service",
]

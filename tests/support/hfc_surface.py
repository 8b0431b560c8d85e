"""Prints the public methods of hfc's classes with their parameters, as JSON: run by the genuine package's interpreter."""

import importlib
import inspect
import json

CLASSES = {
    "Client": "hfc.fabric.client",
    "User": "hfc.fabric.user",
    "Organization": "hfc.fabric.organization",
    "Peer": "hfc.fabric.peer",
    "Orderer": "hfc.fabric.orderer",
    "Channel": "hfc.fabric.channel.channel",
    "ChannelEventHub": "hfc.fabric.channel.channel_eventhub",
    "Enrollment": "hfc.fabric_ca.caservice",
    "CAClient": "hfc.fabric_ca.caservice",
    "CAService": "hfc.fabric_ca.caservice",
    "IdentityService": "hfc.fabric_ca.identityService",
    "AffiliationService": "hfc.fabric_ca.affiliationService",
    "CertificateService": "hfc.fabric_ca.certificateService",
}


def surface():
    found = {}
    for name, module in CLASSES.items():
        kind = getattr(importlib.import_module(module), name)
        found[name] = {}
        for member, value in inspect.getmembers(kind):
            if not member.startswith("_"):
                is_function = inspect.isfunction(value)
                found[name][member] = list(inspect.signature(value).parameters)[1:] if is_function else None
    return found


if __name__ == "__main__":
    print(json.dumps(surface(), indent=1, sort_keys=True))

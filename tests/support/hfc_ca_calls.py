"""The same CA calls by the genuine hfc and by the facade: run by either's interpreter. Arguments: module, one JSON document."""

import importlib
import json
import sys


def calls(module, task):
    service = module.ca_service(task["url"], ca_certs_path=task["roots"])
    prefix, seen = task["prefix"], {}
    admin = service.enroll(task["id"], task["secret"])
    seen["cert_is_bytes"] = isinstance(admin.cert, bytes)
    seen["chain_is_bytes"] = isinstance(admin.caCert, bytes)
    secret = admin.register(prefix + "-a")
    seen["secret"] = isinstance(secret, str) and len(secret) > 0
    seen["chosen"] = admin.register(prefix + "-b", enrollmentSecret=prefix + "-pw", maxEnrollments=2)
    first = service.enroll(prefix + "-a", secret)
    try:
        service.enroll(prefix + "-b", "wrong")
    except ValueError:
        seen["wrong"] = "ValueError"
    second = service.reenroll(service.enroll(prefix + "-b", prefix + "-pw"))
    seen["new_key"] = (
        second.private_key.public_key().public_numbers() != first.private_key.public_key().public_numbers()
    )
    certificates, crl = admin.revoke(prefix + "-a", reason="superseded", gencrl=True)
    seen["revoked"] = {"certificates": sorted(certificates[0]), "crl": len(crl) > 0}
    seen["crl"] = len(admin.generateCRL()) > 0
    identities = service.newIdentityService()
    one = identities.getOne(prefix + "-b", admin)
    seen["one"] = {"success": one["success"], "id": one["result"]["id"], "errors": one["errors"]}
    missing = identities.getOne(prefix + "-nobody", admin)
    seen["missing"] = {"success": missing["success"], "code": missing["errors"][0]["code"]}
    return seen


if __name__ == "__main__":
    print(json.dumps(calls(importlib.import_module(sys.argv[1]), json.loads(sys.argv[2]))))

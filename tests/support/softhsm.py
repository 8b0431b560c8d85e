"""SoftHSM with a token for tests, where Debian's softhsm2 is installed."""

from __future__ import annotations

import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

TOKEN, PIN = "city", "4711"
_LIBRARIES = ("/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so")


def softhsm_library() -> str:
    """Path of the PKCS#11 library, with a token `city` in it; the test is skipped when it is not on this machine."""
    library = next((path for path in _LIBRARIES if Path(path).exists()), None)
    if library is None:
        pytest.skip("missing program: SoftHSM: apt-get install softhsm2")
    _make_token()
    return library


@cache
def _make_token() -> None:
    # The library reads its configuration once in a process, so that there is one token for all tests.
    folder = Path(tempfile.mkdtemp(prefix="softhsm-"))
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\n")
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    pins = ["--label", TOKEN, "--pin", PIN, "--so-pin", "0815"]
    subprocess.run(["softhsm2-util", "--init-token", "--free", *pins], check=True, capture_output=True)


@cache
def generate_in_hsm(library: str, label: str, curve: str) -> Any:
    """Make a key pair that cannot leave the HSM; give its public key."""
    import pkcs11
    from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

    with pkcs11.lib(library).get_token(token_label=TOKEN).open(user_pin=PIN, rw=True) as session:
        parameters = session.create_domain_parameters(
            pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(curve)}, local=True
        )
        public, _ = parameters.generate_keypair(store=True, label=label, id=label.encode())
        return serialization.load_der_public_key(encode_ec_public_key(public))

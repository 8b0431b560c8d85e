"""Wallets give back what was put, keep it from others, and say what is wrong with what they find."""

from __future__ import annotations

import json
import pickle
import shutil
import stat
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sovchain.client.errors import IdentityError, KeyMismatch
from sovchain.client.wallet import (
    NotInWallet,
    StoredIdentity,
    Wallet,
    WalletDamaged,
    WalletError,
    WalletPassword,
    WalletPermissions,
)
from sovchain.network.certificates import CertificateAuthority, Validity

NOW = datetime.now(UTC)
ROOT = CertificateAuthority.create("ca.x.example", "x.example", "CN", Validity.starting(NOW, days=20))


def issue(name: str) -> StoredIdentity:
    issued = ROOT.enroll(name, "client", "CN", Validity.starting(NOW, days=10), {})
    return StoredIdentity("XMSP", issued.certificate_pem, issued.private_key_pem)


ANALYST, AUDITOR = issue("analyst"), issue("auditor")
Make = Callable[[Path], Wallet]
KINDS: dict[str, Make] = {
    "memory": lambda _: Wallet.memory(),
    "folder": lambda path: Wallet.folder(path / "wallet"),
    "folder with a password": lambda path: Wallet.folder(path / "wallet", password=lambda: "correct horse"),
    "node": lambda path: Wallet.node(path / "wallet"),
    "node with a password": lambda path: Wallet.node(path / "wallet", password=lambda: b"correct horse"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_put_is_given_back_and_signs(kind: str, tmp_path: Path) -> None:
    wallet = KINDS[kind](tmp_path)
    assert wallet.labels() == []
    wallet.put("User1@x.example", ANALYST)
    wallet.put("auditor", AUDITOR)
    wallet.put("User1@x.example", AUDITOR)
    wallet.put("User1@x.example", ANALYST)
    found = wallet.get("User1@x.example")
    assert (found.msp_id, found.certificate_pem) == ("XMSP", ANALYST.certificate_pem)
    assert found.sign(b"message")
    assert wallet.export("User1@x.example") == ANALYST
    assert wallet.labels() == ["User1@x.example", "auditor"]
    assert "auditor" in wallet
    wallet.remove("auditor")
    assert "auditor" not in wallet
    for act in (wallet.get, wallet.remove, wallet.export):
        with pytest.raises(NotInWallet, match=r"User1@x\.example") as caught:
            act("auditor")
        assert pickle.loads(pickle.dumps(caught.value)).label == "auditor"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "memory"])
def test_files_are_the_owner_s_only_and_wider_ones_are_refused(kind: str, tmp_path: Path) -> None:
    wallet = KINDS[kind](tmp_path)
    wallet.put("analyst", ANALYST)
    paths = [tmp_path / "wallet", *(tmp_path / "wallet").rglob("*")]
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
        assert not path.name.startswith(".")
    file = max((path for path in paths if path.is_file()), key=lambda path: b"PRIVATE" in path.read_bytes())
    for mode in (0o640, 0o604, 0o620, 0o666):
        file.chmod(mode)
        with pytest.raises(WalletPermissions, match="chmod 600"):
            wallet.get("analyst")


@pytest.mark.parametrize("kind", ["folder", "node"])
def test_an_encrypted_key_is_read_with_its_password_only(kind: str, tmp_path: Path) -> None:
    make = {"folder": Wallet.folder, "node": Wallet.node}[kind]
    make(tmp_path / "wallet", password=lambda: "right").put("analyst", ANALYST)
    plain = "".join(ANALYST.private_key_pem.decode().splitlines()[1:-1])
    for path in (tmp_path / "wallet").rglob("*"):
        assert path.is_dir() or plain[:40] not in path.read_text().replace("\\n", "").replace("\n", "")
    for password in (None, lambda: "wrong", lambda: ""):
        with pytest.raises(WalletPassword) as caught:
            make(tmp_path / "wallet", password=password).get("analyst")
        assert "wrong" not in str(caught.value).replace("the password is wrong", "")
    make(tmp_path / "plain").put("analyst", ANALYST)
    with pytest.raises(WalletPassword, match="not encrypted"):
        make(tmp_path / "plain", password=lambda: "right").get("analyst")


def test_a_file_of_the_node_sdk_is_read_and_ours_has_its_form(tmp_path: Path) -> None:
    """fabric-network, src/impl/wallet/x509identity.ts: X509Data, version 1."""
    document = {
        "credentials": {
            "certificate": ANALYST.certificate_pem.decode(),
            "privateKey": ANALYST.private_key_pem.decode().replace("\n", "\r\n"),
        },
        "mspId": "XMSP",
        "type": "X.509",
        "version": 1,
    }
    path = tmp_path / "appUser.id"
    path.write_text(json.dumps(document))
    path.chmod(0o600)
    wallet = Wallet.node(tmp_path)
    assert wallet.get("appUser").certificate_pem == ANALYST.certificate_pem
    wallet.put("copy", wallet.export("appUser"))
    written = json.loads((tmp_path / "copy.id").read_text())
    assert written.keys() == document.keys()
    assert written["credentials"].keys() == document["credentials"].keys()  # type: ignore[attr-defined]  # a mapping
    assert (written["type"], written["version"], written["mspId"]) == ("X.509", 1, "XMSP")


SCRIPT = """
const { readFileSync } = require('fs');
const { X509Certificate, createPrivateKey } = require('crypto');
const data = JSON.parse(readFileSync(process.argv[1]).toString());
if (data.type !== 'X.509' || data.version !== 1) throw new Error('Unsupported identity version: ' + data.version);
const certificate = new X509Certificate(data.credentials.certificate);
console.log(certificate.checkPrivateKey(createPrivateKey(data.credentials.privateKey)), data.mspId);
"""


def test_node_reads_what_we_write(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("missing program: node: install Node.js 20 (Debian: apt-get install nodejs)")
    Wallet.node(tmp_path).put("analyst", ANALYST)
    command = ["node", "-e", SCRIPT, str(tmp_path / "analyst.id")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout.strip() == "true XMSP", done.stderr


def test_a_key_that_is_not_the_certificate_s_is_not_kept(tmp_path: Path) -> None:
    wallet = Wallet.folder(tmp_path / "wallet")
    with pytest.raises(KeyMismatch):
        wallet.put("mixed", StoredIdentity("XMSP", ANALYST.certificate_pem, AUDITOR.private_key_pem))
    with pytest.raises(IdentityError):
        wallet.put("none", StoredIdentity("", ANALYST.certificate_pem, ANALYST.private_key_pem))
    assert not (tmp_path / "wallet").exists()


@pytest.mark.parametrize("label", ["", "..", ".hidden", "a/b", "../a", "a\\b", "a\0", "x" * 129, "a b", "ü"])
def test_what_cannot_be_a_label_is_refused(label: str, tmp_path: Path) -> None:
    for wallet in (Wallet.folder(tmp_path), Wallet.node(tmp_path), Wallet.memory()):
        for act in (wallet.get, wallet.remove, lambda label, wallet=wallet: wallet.put(label, ANALYST)):
            with pytest.raises(WalletError):
                act(label)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_put_leaves_the_old_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wallet in (Wallet.folder(tmp_path / "a"), Wallet.node(tmp_path / "b")):
        wallet.put("analyst", ANALYST)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        for wallet in (Wallet.folder(tmp_path / "a"), Wallet.node(tmp_path / "b")):
            with pytest.raises(WalletError, match="No space"):
                wallet.put("analyst", AUDITOR)
    for wallet in (Wallet.folder(tmp_path / "a"), Wallet.node(tmp_path / "b")):
        assert wallet.export("analyst") == ANALYST
    assert not list(tmp_path.rglob(".*"))


@settings(max_examples=80, deadline=None)
@given(content=st.one_of(st.binary(max_size=200), st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["credentials", "certificate", "privateKey", "mspId", "type", "version", "x"]), inner, max_size=6),
).map(lambda value: json.dumps(value).encode())))  # fmt: skip
def test_any_content_is_an_identity_or_a_typed_error(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "any.id"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises((WalletDamaged, IdentityError)):
        Wallet.node(folder).get("any")
    (folder / "any").mkdir()
    for name in ("identity.json", "certificate.pem", "private_key.pem"):
        (folder / "any" / name).write_bytes(content)
        (folder / "any" / name).chmod(0o600)
    with pytest.raises((WalletDamaged, IdentityError)):
        Wallet.folder(folder).get("any")


def test_keys_stay_out_of_reprs_and_errors(tmp_path: Path) -> None:
    wallet = Wallet.folder(tmp_path, password=lambda: "MARKER")
    wallet.put("analyst", ANALYST)
    assert "PRIVATE" not in repr(ANALYST) + repr(wallet)
    assert "MARKER" not in repr(wallet)

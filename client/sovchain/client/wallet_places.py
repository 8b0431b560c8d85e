"""Where wallets keep identities: memory, a folder of PEM files, the Node SDK's files.

    folder   <root>/<label>/{identity.json,certificate.pem,private_key.pem}
    Node     <root>/<label>.id: {"credentials": {"certificate", "privateKey"}, "mspId", "type": "X.509", "version": 1}

The second is that of fabric-network's `Wallets.newFileSystemWallet` (src/impl/wallet/filesystemwalletstore.ts and
x509identity.ts). Folders have mode 0700 and files 0600; an identity is replaced as a whole, so a crash leaves the old one or
the new one.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sovchain.client.identity import FILE_MAX_BYTES
from sovchain.client.wallet import StoredIdentity, WalletDamaged, WalletError, WalletPermissions

_UNFINISHED: Final = ".unfinished-"
_FORMAT: Final = 1


class MemoryPlace:
    """A dictionary."""

    source = ""

    def __init__(self) -> None:
        self._identities: dict[str, StoredIdentity] = {}

    def read(self, label: str) -> StoredIdentity | None:
        """See `Place.read`."""
        return self._identities.get(label)

    def write(self, label: str, identity: StoredIdentity) -> None:
        """See `Place.write`."""
        self._identities[label] = identity

    def remove(self, label: str) -> bool:
        """See `Place.remove`."""
        return self._identities.pop(label, None) is not None

    def labels(self) -> list[str]:
        """See `Place.labels`."""
        return sorted(self._identities)


class FolderPlace:
    """A folder for each label, with PEM files that other programs can be pointed at."""

    _FILES: Final = ("identity.json", "certificate.pem", "private_key.pem")

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def source(self) -> str:
        """See `Place.source`."""
        return str(self._root)

    def read(self, label: str) -> StoredIdentity | None:
        """See `Place.read`."""
        folder = self._root / label
        if not folder.is_dir():
            return None
        described, certificate, key = (_read(label, folder / name) for name in self._FILES)
        document = _document(label, folder / self._FILES[0], described)
        if document.get("version") != _FORMAT or not isinstance(document.get("mspId"), str):
            raise _damaged(label, folder / self._FILES[0], "it is no identity of version 1")
        return StoredIdentity(document["mspId"], certificate, key)

    def write(self, label: str, identity: StoredIdentity) -> None:
        """See `Place.write`."""
        described = {"version": _FORMAT, "type": "X.509", "mspId": identity.msp_id}
        contents = (
            json.dumps(described, indent=2).encode() + b"\n",
            identity.certificate_pem,
            identity.private_key_pem,
        )
        waiting = self._root / f"{_UNFINISHED}{secrets.token_hex(4)}"
        former = self._root / f"{_UNFINISHED}{secrets.token_hex(4)}"
        target = self._root / label
        try:
            _make_folder(self._root)
            waiting.mkdir(mode=0o700)
            for name, content in zip(self._FILES, contents, strict=True):
                _create(waiting / name, content)
            if target.exists():
                target.rename(former)
            waiting.rename(target)
            _sync(self._root)
        except OSError as error:
            raise _unwritten(label, target, error) from None
        finally:
            for left in (waiting, former):
                shutil.rmtree(left, ignore_errors=True)

    def remove(self, label: str) -> bool:
        """See `Place.remove`."""
        folder = self._root / label
        if not folder.is_dir():
            return False
        try:
            shutil.rmtree(folder)
        except OSError as error:
            raise _unwritten(label, folder, error) from None
        return True

    def labels(self) -> list[str]:
        """See `Place.labels`."""
        return sorted(path.name for path in _entries(self._root) if (path / self._FILES[0]).is_file())


class NodePlace:
    """Files of the Node SDK's file-system wallet."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def source(self) -> str:
        """See `Place.source`."""
        return str(self._root)

    def read(self, label: str) -> StoredIdentity | None:
        """See `Place.read`."""
        path = self._root / f"{label}.id"
        if not path.exists():
            return None
        document = _document(label, path, _read(label, path))
        credentials = document.get("credentials")
        if document.get("type") != "X.509" or document.get("version") != _FORMAT or not isinstance(credentials, dict):
            raise _damaged(label, path, "it is no X.509 identity of version 1")
        texts = (document.get("mspId"), credentials.get("certificate"), credentials.get("privateKey"))
        msp_id, certificate, key = (text if isinstance(text, str) else "" for text in texts)
        if not (msp_id and certificate and key):
            raise _damaged(label, path, "its MSP id, certificate or private key is missing")
        return StoredIdentity(msp_id, certificate.encode(), key.encode())

    def write(self, label: str, identity: StoredIdentity) -> None:
        """See `Place.write`."""
        document = {
            "credentials": {
                "certificate": identity.certificate_pem.decode(),
                "privateKey": identity.private_key_pem.decode(),
            },
            "mspId": identity.msp_id,
            "type": "X.509",
            "version": _FORMAT,
        }
        target = self._root / f"{label}.id"
        waiting = self._root / f"{_UNFINISHED}{secrets.token_hex(4)}"
        try:
            _make_folder(self._root)
            _create(waiting, json.dumps(document).encode())
            waiting.replace(target)
            _sync(self._root)
        except OSError as error:
            waiting.unlink(missing_ok=True)
            raise _unwritten(label, target, error) from None

    def remove(self, label: str) -> bool:
        """See `Place.remove`."""
        path = self._root / f"{label}.id"
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unwritten(label, path, error) from None
        return True

    def labels(self) -> list[str]:
        """See `Place.labels`."""
        return sorted(path.stem for path in _entries(self._root) if path.suffix == ".id" and path.is_file())


def _entries(root: Path) -> list[Path]:
    try:
        return [path for path in root.iterdir() if not path.name.startswith(_UNFINISHED)]
    except FileNotFoundError:
        return []
    except OSError as error:
        why = f"the wallet cannot be read ({error.strerror})"
        raise WalletError("", why, "check the path", source=str(root)) from None


def _read(label: str, path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & 0o077:
                raise WalletPermissions(
                    label,
                    f"others may use {path.name} (mode {mode:04o})",
                    f"chmod 600 {path}, and replace the key if others have had access",
                    source=str(path.parent),
                )
            content = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        raise _damaged(label, path, "it is missing") from None
    except OSError as error:
        raise _damaged(label, path, f"it cannot be read ({error.strerror})") from None
    if len(content) > FILE_MAX_BYTES:
        raise _damaged(label, path, f"it has more than {FILE_MAX_BYTES} bytes")
    return content


def _document(label: str, path: Path, content: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        raise _damaged(label, path, "it is not JSON") from None
    if not isinstance(document, dict):
        raise _damaged(label, path, "it is no JSON object")
    return document


def _damaged(label: str, path: Path, why: str) -> WalletDamaged:
    return WalletDamaged(label, f"{path.name}: {why}", "put the identity again", source=str(path.parent))


def _unwritten(label: str, path: Path, error: OSError) -> WalletError:
    why = f"{path.name} cannot be written ({error.strerror})"
    return WalletError(label, why, "check the path and its permissions", source=str(path.parent))


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


def _create(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _sync(folder: Path) -> None:
    """Make a rename last: without this a power cut may bring back what was there before."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

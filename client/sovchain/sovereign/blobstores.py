"""Where sealed payloads lie: stores that keep blobs under their own hash.

A store is trusted with nothing. It sees ciphertext only, and whoever reads compares what it gives with the address.

    BlobStore        what a store can do
    ├── FolderStore  files in a folder
    └── S3Store      objects in a bucket of Amazon S3 or anything that speaks its protocol
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from sovchain.sovereign.errors import BlobAltered, BlobMissing, InvalidInput, StoreError

BLOB_MAX_BYTES: Final = 64 * 1024 * 1024
"""Largest blob that a store is asked for."""
ATTEMPTS: Final = 5
"""How often one request to an S3 store is made."""
TIMEOUT_S: Final = 60.0
"""How long one request to an S3 store may be silent, in seconds."""
_ADDRESS = re.compile(r"[0-9a-f]{64}", re.ASCII)


class BlobStore(ABC):
    """Blobs under the SHA-256 of their bytes, in hex. Methods block, and may be called from several threads at once."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where it is, as `open_store` takes it; "" where that is nobody else's business. Never a credential."""

    @abstractmethod
    def has(self, address: str) -> bool:
        """Whether a blob is there. Raises StoreError."""

    @abstractmethod
    def _write(self, address: str, data: bytes) -> None: ...

    @abstractmethod
    def _read(self, address: str) -> bytes:
        """What lies under an address; of what is too long, `BLOB_MAX_BYTES` and one more, which no hash will fit."""

    def put(self, data: bytes) -> str:
        """Keep a blob, whole or not at all; one that is there already is not written again. Raises StoreError."""
        address = hashlib.sha256(data).hexdigest()
        if not self.has(address):
            self._write(address, data)
        return address

    def get(self, address: str) -> bytes:
        """A blob, compared with its address. Raises BlobMissing, BlobAltered, StoreError."""
        data = self._read(_checked(address))
        if hashlib.sha256(data).hexdigest() != address:
            raise BlobAltered(
                "the store gave other bytes than it was asked for",
                f"their hash is not {address}",
                "use another copy of the store, and tell whoever runs this one",
                address=address,
            )
        return data


class FolderStore(BlobStore):
    """Blobs as files of a folder, which is made if it is not there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __repr__(self) -> str:
        return f"FolderStore({str(self._folder)!r})"

    @property
    def location(self) -> str:
        """Nothing: a folder is its machine's business."""
        return ""

    def has(self, address: str) -> bool:
        """See `BlobStore.has`."""
        return self._path(address).is_file()

    def _path(self, address: str) -> Path:
        return self._folder / _checked(address)[:2] / address

    def _write(self, address: str, data: bytes) -> None:
        path = self._path(address)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=".part-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                Path(part).replace(path)
            except BaseException:
                Path(part).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _folder_error(self._folder, error) from None

    def _read(self, address: str) -> bytes:
        try:
            with self._path(address).open("rb") as file:
                # Asking for more than there is would take the memory for it.
                return file.read(min(os.fstat(file.fileno()).st_size, BLOB_MAX_BYTES) + 1)
        except FileNotFoundError:
            raise _missing(address) from None
        except OSError as error:
            raise _folder_error(self._folder, error) from None


class S3Store(BlobStore):
    """Blobs as objects of a bucket. Credentials come from where boto3 looks for them (environment, files, instance role).

    Args:
        bucket: its name; it must exist.
        prefix: what every key begins with.
        endpoint: https address of a server other than Amazon's.
        region: of the bucket.
        insecure: take an endpoint without TLS; only a person can want that.

    Raises InvalidInput for an endpoint without TLS, StoreError where boto3 is not installed.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint: str | None = None,
        region: str | None = None,
        insecure: bool = False,
    ) -> None:
        if endpoint is not None and not endpoint.startswith("https://") and not insecure:
            raise InvalidInput(
                "the store's endpoint has no TLS",
                "whoever listens could see what is fetched, and send something else",
                "use an https:// endpoint, or say --insecure",
            )
        try:
            import boto3
            from botocore.config import Config
        except ImportError:
            raise StoreError(
                "S3 stores cannot be used", "boto3 is not installed", "install sovchain with its extra: sovchain[s3]"
            ) from None
        self._bucket, self._prefix, self._endpoint = bucket, prefix.strip("/"), endpoint
        self._client: Any = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=region,
            config=Config(
                connect_timeout=TIMEOUT_S,
                read_timeout=TIMEOUT_S,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                s3={"addressing_style": "path"} if endpoint else {},
            ),
        )

    def __repr__(self) -> str:
        return f"S3Store({self.location!r})"

    @property
    def location(self) -> str:
        """The bucket, the prefix and the endpoint, if it is not Amazon's own."""
        where = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        return where if self._endpoint is None else f"{where}?endpoint={self._endpoint}"

    def _key(self, address: str) -> str:
        return "/".join(part for part in (self._prefix, _checked(address)[:2], address) if part)

    def has(self, address: str) -> bool:
        """See `BlobStore.has`."""
        with self._errors(address):
            try:
                self._client.head_object(Bucket=self._bucket, Key=self._key(address))
            except self._client.exceptions.ClientError as error:
                if _status(error) == 404:
                    return False
                raise
        return True

    def _write(self, address: str, data: bytes) -> None:
        with self._errors(address):
            # The server compares the bytes with this before it answers.
            self._client.put_object(Bucket=self._bucket, Key=self._key(address), Body=data, ChecksumAlgorithm="SHA256")

    def _read(self, address: str) -> bytes:
        with self._errors(address):
            found = self._client.get_object(Bucket=self._bucket, Key=self._key(address))
            with contextlib.closing(found["Body"]) as body:
                return bytes(body.read(min(int(found["ContentLength"]), BLOB_MAX_BYTES) + 1))
        raise AssertionError("the block returns or raises")

    @contextlib.contextmanager
    def _errors(self, address: str) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", _status(error)))
            if code == "NoSuchKey" or (_status(error) == 404 and code != "NoSuchBucket"):
                raise _missing(address) from None
            raise StoreError(
                f"the store refuses ({code})",
                f"bucket {self._bucket}",
                "check the bucket's name and what the credentials allow",
            ) from None
        except (BotoCoreError, OSError) as error:
            # botocore's own texts name hosts and keys of objects, never credentials; the type is enough.
            raise StoreError(
                "the store cannot be used",
                type(error).__name__,
                "check endpoint, network and credentials; then go on where this stopped",
            ) from None


def open_store(where: str, *, insecure: bool = False) -> BlobStore:
    """The store at a place: a folder's path, or `s3://BUCKET/PREFIX?endpoint=https://HOST&region=REGION`.

    Raises InvalidInput, StoreError.
    """
    if not where.startswith("s3://"):
        if "://" in where or not where:
            raise InvalidInput(
                f"{where!r} is no store", "it is neither a folder nor s3://", "give a path or s3://BUCKET"
            )
        return FolderStore(Path(where))
    parts = urlsplit(where)
    options = parse_qs(parts.query)
    unknown = sorted(set(options) - {"endpoint", "region"})
    if unknown or not parts.netloc or "@" in parts.netloc:
        raise InvalidInput(
            "the store's address is malformed",
            f"it has {', '.join(unknown)}" if unknown else "it names no bucket alone",
            "write s3://BUCKET/PREFIX?endpoint=https://HOST, and keep credentials out of it",
        )
    return S3Store(
        parts.netloc,
        parts.path,
        endpoint=options.get("endpoint", [None])[0],
        region=options.get("region", [None])[0],
        insecure=insecure,
    )


def _checked(address: str) -> str:
    if not _ADDRESS.fullmatch(address):
        raise InvalidInput("the blob's address is malformed", "it is no SHA-256 in hex", "check the manifest")
    return address


def _missing(address: str) -> BlobMissing:
    return BlobMissing(
        "the store has not got a part of the payload",
        f"there is no blob {address}",
        "check that this is the owner's store, or ask the owner",
        address=address,
    )


def _folder_error(folder: Path, error: OSError) -> StoreError:
    return StoreError(
        f"the store {folder} cannot be used", (error.strerror or "the system refuses").lower(), "check its permissions"
    )


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))

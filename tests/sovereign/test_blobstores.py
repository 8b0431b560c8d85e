"""Stores keep blobs under their hash, in a folder and on a server that speaks S3's protocol, and say what is wrong with them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from sovchain.sovereign import (
    BlobAltered,
    BlobMissing,
    BlobStore,
    FolderStore,
    InvalidInput,
    S3Store,
    StoreError,
    open_store,
)
from sovchain.sovereign.sealedfile import check_stored, open_file, seal_file

SECRET = "a-secret-key-of-nobody"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server in this process, on the loopback, with one bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
            patch.delenv(name, raising=False)
        for name, value in (
            ("ACCESS_KEY_ID", "somebody"),
            ("SECRET_ACCESS_KEY", SECRET),
            ("DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(f"AWS_{name}", value)
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="payloads")
        yield address
        server.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return FolderStore(tmp_path / "store")
    endpoint = request.getfixturevalue("endpoint")
    return S3Store("payloads", f"test/{os.urandom(4).hex()}", endpoint=endpoint, insecure=True)


def test_a_blob_lies_under_its_hash(store: BlobStore) -> None:
    data = os.urandom(1000)
    address = hashlib.sha256(data).hexdigest()
    assert not store.has(address)
    with pytest.raises(BlobMissing) as caught:
        store.get(address)
    assert caught.value.address == address
    assert store.put(data) == address == store.put(data)
    assert store.has(address)
    assert store.get(address) == data
    for wrong in ("", "../" * 21 + "x", "AB" * 32, address[:-1]):
        with pytest.raises(InvalidInput):
            store.get(wrong)


def test_a_file_goes_through_it(store: BlobStore, tmp_path: Path) -> None:
    source, target = tmp_path / "file", tmp_path / "opened"
    source.write_bytes(os.urandom(5000))
    opener = seal_file(source, store, chunk_bytes=512)
    check_stored(store, opener.manifest)
    open_file(opener, store, target)
    assert target.read_bytes() == source.read_bytes()


def test_a_server_that_gives_other_bytes_is_found_out(endpoint: str) -> None:
    store = S3Store("payloads", "altered", endpoint=endpoint, insecure=True)
    address = store.put(b"what was put")
    client = boto3.client("s3", endpoint_url=endpoint)
    client.put_object(Bucket="payloads", Key=f"altered/{address[:2]}/{address}", Body=b"something else")
    with pytest.raises(BlobAltered) as caught:
        store.get(address)
    assert caught.value.address == address


def test_what_is_wrong_with_a_store_is_said_without_its_credentials(endpoint: str, tmp_path: Path) -> None:
    nobucket = S3Store("no-such-bucket", endpoint=endpoint, insecure=True)
    with pytest.raises(StoreError, match="NoSuchBucket") as caught:
        nobucket.put(b"x")
    assert not isinstance(caught.value, BlobMissing)
    away = S3Store("payloads", endpoint="http://127.0.0.1:9", insecure=True)
    with pytest.raises(StoreError, match="go on where this stopped") as gone:
        away.get("ab" * 32)
    for text in (repr(nobucket), str(caught.value), str(gone.value)):
        assert SECRET not in text
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(StoreError, match="cannot be used"):
        FolderStore(file).put(b"x")


def test_a_store_is_named_by_its_address(endpoint: str, tmp_path: Path) -> None:
    assert open_store("s3://payloads/a/b").location == "s3://payloads/a/b"
    store = open_store(f"s3://payloads/a?endpoint={endpoint}&region=cn-north-1", insecure=True)
    assert store.location == f"s3://payloads/a?endpoint={endpoint}"
    store.put(b"x")
    assert open_store(str(tmp_path)).location == ""
    with pytest.raises(InvalidInput, match="no TLS"):
        open_store(f"s3://payloads/a?endpoint={endpoint}")
    for wrong in ("", "http://host/x", "s3://", "s3://key:secret@bucket/x", "s3://bucket?key=x"):
        with pytest.raises(InvalidInput) as caught:
            open_store(wrong)
        assert "secret" not in str(caught.value)

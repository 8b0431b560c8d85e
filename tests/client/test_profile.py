"""Profiles: each fault is named by its file, its place or its field; parsing raises nothing else on any bytes."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from fakegateway import LiveAuthority, key_pem, status_details
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pki import pem

from sovchain.client import Profile, ProfileContentError, ProfileError, ProfileNotFound, ProfileSyntaxError
from sovchain.client._status import failure_of
from sovchain.rpc.errors import RpcError


@pytest.fixture
def document(authority: LiveAuthority) -> dict[str, Any]:
    client = authority.issue("tls client")
    return {
        "client": {
            "organization": "Org1",
            "tlsCerts": {
                "client": {"cert": {"pem": pem(client.certificate).decode()}, "key": {"pem": key_pem(client).decode()}}
            },
        },
        "organizations": {"Org1": {"mspid": "Org1MSP", "peers": ["peer0"]}},
        "peers": {
            "peer0": {
                "url": "grpcs://localhost:7051",
                "tlsCACerts": {"pem": pem(authority.certificate).decode()},
                "grpcOptions": {"ssl-target-name-override": "peer0.org1"},
            }
        },
    }


def put(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one field replaced, or removed where the value is `...`."""
    changed = copy.deepcopy(document)
    *folders, last = path.split(".")
    place = changed
    for folder in folders:
        place = place[folder]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return changed


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path, Path("a\0b")):
        with pytest.raises(ProfileNotFound) as caught:
            Profile.load(path)
        assert caught.value.source == str(path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b'{\n  "client": }', (2, 13)),
        (b"client:\n  a: b: c\n", (2, 7)),
        (b"[1, 2]", (0, 0)),
        (b"\xff\xfe", (0, 0)),
        (b"", (0, 0)),
        (b"{" * 20, (1, 2)),
        (b"- " * 40_000, (0, 0)),
        (b'{"a": ' + b"1" * 5000 + b"}", (0, 0)),
        (b"a: 2001-13-45", (0, 0)),
        (b"a: !!timestamp x", (0, 0)),
        (b"a: !!bool x", (0, 0)),
        (b"a: !!int ''", (0, 0)),
        (b"a: !!python/object/apply:os.system [x]", (1, 4)),
    ],
)
def test_a_syntax_error_has_line_and_column(tmp_path: Path, text: bytes, place: tuple[int, int]) -> None:
    (tmp_path / "p").write_bytes(text)
    with pytest.raises(ProfileSyntaxError) as caught:
        Profile.load(tmp_path / "p")
    assert (caught.value.line, caught.value.column) == place


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("client", ...),
        ("client.organization", ...),
        ("client.organization", 7),
        ("client.tlsCerts.client.cert", ...),
        ("client.tlsCerts.client.cert", {"pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}),
        ("client.tlsCerts.client.key", ...),
        ("client.tlsCerts.client.key", {"pem": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"}),
        ("organizations", ...),
        ("organizations.Org1", ...),
        ("organizations.Org1.mspid", ...),
        ("organizations.Org1.mspid", ""),
        ("organizations.Org1.peers", ...),
        ("organizations.Org1.peers", []),
        ("organizations.Org1.peers", [7]),
        ("peers.peer0", ...),
        ("peers.peer0.url", ...),
        ("peers.peer0.url", "http://localhost:7051"),
        ("peers.peer0.url", "grpcs://localhost"),
        ("peers.peer0.url", "grpcs://:7051"),
        ("peers.peer0.url", "grpcs://localhost:99999"),
        ("peers.peer0.url", "grpcs://localhost:²"),
        ("peers.peer0.tlsCACerts", ...),
        ("peers.peer0.tlsCACerts", {"pem": "text"}),
        ("peers.peer0.tlsCACerts", {"pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"}),
        ("peers.peer0.grpcOptions", 7),
    ],
)
def test_each_missing_or_wrong_field_is_named(document: dict[str, Any], field: str, value: Any) -> None:
    with pytest.raises(ProfileContentError) as caught:
        Profile.from_mapping(put(document, field, value))
    assert caught.value.field == field


def test_pem_is_read_in_place_as_a_list_and_from_a_relative_path(
    document: dict[str, Any], tmp_path: Path, authority: LiveAuthority
) -> None:
    root = pem(authority.certificate)
    (tmp_path / "root.pem").write_bytes(root)
    for entry in ({"pem": root.decode()}, {"pem": [root.decode()]}, {"path": "root.pem"}):
        (tmp_path / "profile.json").write_text(json.dumps(put(document, "peers.peer0.tlsCACerts", entry)))
        (gateway,) = Profile.load(tmp_path / "profile.json").gateways
        assert gateway.tls_root_pem == root
        assert (gateway.address, gateway.server_name) == ("localhost:7051", "peer0.org1")
    for path in ("none.pem", "a\0b"):
        with pytest.raises(ProfileNotFound, match="tlsCACerts"):
            Profile.from_mapping(put(document, "peers.peer0.tlsCACerts", {"path": path}), folder=tmp_path)


def test_no_key_is_in_the_repr(document: dict[str, Any]) -> None:
    profile = Profile.from_mapping(document)
    assert profile.client_key_pem is not None
    assert "BEGIN" not in repr(profile)
    assert "client_key_pem" not in repr(profile)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ["client", "client.organization", "client.tlsCerts", "organizations", "organizations.Org1", "peers"]
FIELDS += ["organizations.Org1.mspid", "organizations.Org1.peers", "peers.peer0", "peers.peer0.url"]
FIELDS += ["peers.peer0.tlsCACerts", "peers.peer0.grpcOptions", "peers.peer0.grpcOptions.ssl-target-name-override"]
SHARED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SHARED
@given(data=st.binary(max_size=200) | st.text(alphabet="!{}[]:-&*?|> \n\tab0.'\"%@", max_size=60).map(str.encode))
def test_arbitrary_bytes_raise_a_profile_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "p").write_bytes(data)
    with pytest.raises(ProfileError):
        Profile.load(tmp_path / "p")


@SHARED
@given(field=st.sampled_from(FIELDS), value=JSON)
def test_arbitrary_fields_raise_a_profile_error_or_nothing(document: dict[str, Any], field: str, value: Any) -> None:
    try:
        Profile.from_mapping(put(document, field, value))
    except ProfileError as error:
        assert str(error)


@SHARED
@given(status=st.binary(max_size=200), cut=st.integers(0, 60), text=st.text(max_size=5000))
def test_details_of_a_failed_call_never_raise(status: bytes, cut: int, text: str) -> None:
    """Neither arbitrary bytes nor a torn status; what stands before the tear is kept."""
    whole = status_details(("peer0", "Org1MSP", "one"), ("peer1", "Org2MSP", "two"))
    for raw, least in ((status, 0), (whole[:-1], 1), (whole[:cut] + status, 0), (whole + status, 2)):
        failure = failure_of(RpcError(text, 10, raw), "host:1", 0.1)
        assert failure.status == "ABORTED"
        assert len(failure.message) <= 2048
        assert len(failure.details) >= least

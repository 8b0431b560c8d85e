"""The chaincode image holds Python, the slim distribution and what that needs, and nothing to work with besides."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from dockerimages import chaincode_image, docker

from sovchain.network.runtimes.docker_engine import Engine

MB_MOST = 120
PYTHON = "/usr/local/bin/python3"


@pytest.fixture(scope="module")
def image(engine: Engine) -> str:
    return chaincode_image()


@pytest.fixture(scope="module")
def files(image: str, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Everything in the image."""
    archive = tmp_path_factory.mktemp("image") / "image.tar"
    container = docker("create", image)
    try:
        docker("export", "--output", str(archive), container)
    finally:
        docker("rm", container)
    with tarfile.open(archive) as opened:
        return {member.name for member in opened.getmembers() if member.isfile() or member.issym()}


def run(image: str, code: str) -> str:
    options = ("--rm", "--network", "none", "--read-only", "--cap-drop", "ALL", "--entrypoint", PYTHON)
    return docker("run", *options, image, "-c", code)


def test_it_serves_contracts_and_knows_no_client(image: str) -> None:
    code = (
        "import importlib, os\n"
        "import sovchain.contracts.finance, sovchain.contracts.government, sovchain.contracts.logistics\n"
        "print(os.getuid())\n"
        "for name in ('client', 'sovereign', 'network', 'ledger', 'audit', 'testing', 'cli'):\n"
        "    try:\n        importlib.import_module(f'sovchain.{name}'); print(name)\n"
        "    except ModuleNotFoundError:\n        pass\n"
        "for name in ('pip', 'setuptools', 'ensurepip', 'distutils', 'pdb'):\n"
        "    try:\n        importlib.import_module(name); print(name)\n"
        "    except ModuleNotFoundError:\n        pass\n"
    )
    answer = run(image, code).split()
    assert len(answer) == 1, answer
    assert int(answer[0]) >= 10000


def test_no_shell_no_package_manager_no_compiler(files: set[str]) -> None:
    programs = {name for name in files if "/bin/" in f"/{name}" or "/sbin/" in f"/{name}"}
    assert programs == {"usr/local/bin/python3"}
    packages = {Path(name).parts[5] for name in files if "site-packages/" in name}
    assert not packages & {"pip", "setuptools", "wheel", "httpx", "typer", "rich", "pytest"}
    assert {"sovchain", "grpc", "cedarpy", "pydantic", "cryptography"} <= packages
    assert not [name for name in files if name.endswith((".pth", ".egg-link", ".h"))]


def test_it_is_small_and_says_how_it_runs(image: str) -> None:
    (found,) = json.loads(docker("image", "inspect", image))
    assert found["Size"] < MB_MOST * 1_000_000
    assert found["Config"]["User"] == "10001:10001"
    assert not found["Config"].get("ExposedPorts")
    assert "PIP" not in " ".join(found["Config"]["Env"])

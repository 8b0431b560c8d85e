"""`sovchain status` shows what runs, says what is wrong, and never fails on what cannot be reached."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import expire
from commandline import Sovchain


@pytest.mark.parametrize("command", [("status",), ("network", "status")])
def test_a_network_that_is_well_is_shown_whole(network: Sovchain, command: tuple[str, ...]) -> None:
    seen = network.ok(*command)
    assert seen["problems"] == []
    assert seen["state"] == "up"
    finance = seen["channels"]["finance"]
    assert finance["agreement"] == "same"
    assert {chain["height"] for chain in finance["peers"]} == {finance["height"]}
    assert all(node["answers"] for node in seen["nodes"])
    definition = next(entry for entry in seen["chaincodes"] if entry["name"] == "finance")
    assert definition["sequence"] == 1
    assert definition["approvals"] == {"FinanceMSP": True, "GovernmentMSP": True, "SupervisorMSP": True}
    assert all(service["answers"] and service["pid"] for service in seen["services"])
    shown = network.run(*command)
    assert shown.code == 0
    assert "peer0.finance.guiyang.example" in shown.out


def test_a_down_network_and_an_absent_one_are_told_apart_from_a_broken_one(empty: Sovchain) -> None:
    assert (empty.run("status").code, empty.run("status", "--json").json["state"]) == (3, "down")
    empty.up()
    empty.down()
    done = empty.run("status", "--json")
    assert (done.code, done.json["state"], done.json["nodes"]) == (3, "down", [])


def test_a_missing_key_and_an_expired_certificate_are_rows_and_the_rest_is_shown(
    empty: Sovchain, tmp_path: Path
) -> None:
    """The folder of one organisation holds nobody else's keys."""
    empty.up()
    organizations = empty.directory / "organizations/peerOrganizations"
    government, finance = "government.guiyang.example", "finance.guiyang.example"
    key = organizations / government / f"users/Admin@{government}/msp/keystore/priv_sk"
    key.replace(tmp_path / "elsewhere")
    expire(organizations / finance, f"User1@{finance}")
    done = empty.run("status", "--json")
    (tmp_path / "elsewhere").replace(key)
    assert done.code == 5
    chains = {chain["host"]: chain for chain in done.json["channels"]["finance"]["peers"]}
    assert "cannot be read" in chains[f"peer0.{government}"]["problem"]
    assert chains[f"peer0.{finance}"]["height"] > 0
    assert all(entry["sequence"] == 1 for entry in done.json["chaincodes"])
    (certificate,) = done.json["certificates"]
    assert certificate["subject"] == f"User1@{finance}"
    assert certificate["days_left"] < 0
    assert [problem for problem in done.json["problems"] if "has expired" in problem]

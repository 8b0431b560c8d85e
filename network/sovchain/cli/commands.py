"""The command tree."""

from __future__ import annotations

import typer

import sovchain.cli.lawstudy_commands  # adds its commands to `law`
import sovchain.cli.odrl_commands  # adds its commands to `law`
import sovchain.cli.part_commands  # noqa: F401  # adds its command to `audit`
from sovchain.cli.apply_commands import add_org, apply, plan, remove_org, upgrade
from sovchain.cli.audit_commands import audit
from sovchain.cli.bundle_commands import assemble, bundle, define
from sovchain.cli.chaincode_commands import chaincode
from sovchain.cli.client_commands import client
from sovchain.cli.data_commands import data
from sovchain.cli.demo import demo
from sovchain.cli.explain_commands import explain
from sovchain.cli.grant_commands import grant
from sovchain.cli.identity_commands import export, identity
from sovchain.cli.law_commands import law, registry
from sovchain.cli.ledger_commands import ledger
from sovchain.cli.logs_command import logs
from sovchain.cli.network_commands import down, network, up
from sovchain.cli.order_commands import order
from sovchain.cli.personal_commands import personal
from sovchain.cli.raw_commands import evaluate, submit
from sovchain.cli.sharing_commands import open_, receipts, release, request, share
from sovchain.cli.snapshot_commands import join, snapshot
from sovchain.cli.status_command import status
from sovchain.cli.topology_commands import topology
from sovchain.cli.update_commands import update

EPILOG = (
    "Exit codes: 0 done, 1 refused, 2 input cannot be used, 3 network not up or not reachable, 4 denied by the law, "
    "5 the audit or a look at the network found something, 6 outcome unknown, 70 an error of sovchain itself."
)

app = typer.Typer(
    name="sovchain",
    help="Law-governed data sharing on Hyperledger Fabric.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (up, down, status, plan, apply, evaluate, submit, share, request, release, receipts, explain, demo):
    app.command()(command)
app.command(name="open")(open_)
network.command()(status)
network.command()(define)
network.command()(bundle)
network.command()(assemble)
network.command()(export)
network.command()(logs)
network.command()(snapshot)
network.command()(join)
network.command(name="add-org")(add_org)
network.command(name="remove-org")(remove_org)
network.command()(upgrade)
network.add_typer(update, name="update")
app.add_typer(network, name="network")
app.add_typer(ledger, name="ledger")
app.add_typer(identity, name="identity")
app.add_typer(law, name="law")
app.add_typer(registry, name="registry")
app.add_typer(order, name="order")
app.add_typer(audit, name="audit")
app.add_typer(data, name="data")
app.add_typer(grant, name="grant")
app.add_typer(personal, name="personal")
app.add_typer(topology, name="topology")
app.add_typer(chaincode, name="chaincode")
app.add_typer(client, name="client")

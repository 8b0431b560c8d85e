"""`sovchain law explain`, `diff`, `lint` and `what-if`: what a law says, changes, conflicts with, would change."""

from __future__ import annotations

import asyncio
import difflib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sovchain.cli import problems
from sovchain.cli.app import DEFAULT_DIRECTORY, As, Channel, Directory, Json, command, sovereign
from sovchain.cli.law_commands import law
from sovchain.cli.output import Output
from sovchain.cli.problems import CommandError

if TYPE_CHECKING:
    from sovchain.contracts.core.facts import LawVersion
    from sovchain.contracts.core.lawtext import LawText

_TEXT_MAX_BYTES = 1024 * 1024


@law.command("explain")
@command
async def explain(
    request: Annotated[str, typer.Argument(help="The request whose decision is to be explained.")],
    channel: Channel,
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> None:
    """Explain a decision: each reason in words, with the clause as it stands in the law that was in force."""
    from sovchain.contracts.core.lawtext import clause_texts

    async with sovereign(directory, who, channel) as office:
        receipt = await office.receipt(request)
        laws = {(view.header.law, view.header.version): view for view in await office.laws()}
        cited = {(one.law, one.version) for one in receipt.reasons if one.law is not None and one.version is not None}
        texts = {name: clause_texts(await office.law_text(laws[name].text_hash)) for name in cited if name in laws}
    lines = [f"{receipt.decision} at {receipt.decided_at.isoformat()}" + (f", {receipt.code}" if receipt.code else "")]
    shown = []
    for reason in receipt.reasons:
        text = texts.get((reason.law or "", reason.version or 0), {}).get(reason.clause or "", "")
        shown.append({**reason.model_dump(exclude_none=True), "text": text})
        lines.append(f"- {reason.text()}")
        lines += [f"    {line}" for line in text.splitlines()]
    Output(as_json=json_output).result(
        {"request": request, "decision": receipt.decision, "code": receipt.code, "reasons": shown}, *lines
    )


@law.command("diff")
@command
async def diff(
    old: Annotated[Path, typer.Argument(help="A law's text.")],
    new: Annotated[Path, typer.Argument(help="Another version of it.")],
    json_output: Json = False,
) -> None:
    """Show what another version of a law changes, clause by clause, whatever the order of the clauses."""
    from sovchain.contracts.core.lawtext import clause_texts
    from sovchain.sovereign import check_law, read_text_file

    before, after = (check_law(read_text_file(path, _TEXT_MAX_BYTES)) for path in (old, new))
    olds, news = clause_texts(before.text), clause_texts(after.text)
    lines = [f"{one.header.law} version {one.header.version} of {one.header.jurisdiction}" for one in (before, after)]
    lines = [f"{lines[0]} -> {lines[1]}"]
    changes = []
    for clause in sorted(olds.keys() | news.keys()):
        was, now = _words(olds.get(clause, "")), _words(news.get(clause, ""))
        if was == now:
            continue
        kind = "added" if not was else "removed" if not now else "changed"
        changes.append({"clause": clause, "change": kind, "before": olds.get(clause), "after": news.get(clause)})
        lines.append(f"{kind}: clause {clause}")
        lines += [
            f"    {line}" for line in difflib.ndiff(_lines(olds, clause), _lines(news, clause)) if line[0] in "+- "
        ]
    if not changes:
        lines.append("no clause differs")
    Output(as_json=json_output).result({"changes": changes}, *lines)


def _as_in_force(text: LawText) -> LawVersion:
    from sovchain.contracts.core.facts import LawVersion

    header = text.header
    return LawVersion(
        header.law, header.version, header.jurisdiction, header.effective_from, None, text.text, text.text_hash
    )


def _words(text: str) -> list[str]:
    """A clause without what says nothing: annotations of law and version, and the way that it is laid out."""
    return [word for word in text.split() if not word.startswith(("@law(", "@version("))]


def _lines(texts: dict[str, str], clause: str) -> list[str]:
    return [line for line in texts.get(clause, "").splitlines() if not line.startswith("@law(")]


@law.command("lint")
@command
async def lint(
    files: Annotated[list[Path], typer.Argument(help="Laws in Cedar with their header comments.")],
    channel: Annotated[
        str | None,
        typer.Option("--channel", help="Check against the laws in force there instead of against each other."),
    ] = None,
    who: As = "Supervisor",
    directory: Directory = DEFAULT_DIRECTORY,
    json_output: Json = False,
) -> int | None:
    """Look for conflicts: clauses that can never take effect, say nothing new, or leave others without effect.

    Exit code 5 for errors; warnings alone are no failure. `docs/law-findings.md` says what each finding means.
    """
    from sovchain.contracts.core.conflicts import conflicts
    from sovchain.sovereign import LawTextError, check_law, read_text_file

    laws = []
    for file in files:
        try:
            laws.append((file, check_law(read_text_file(file, _TEXT_MAX_BYTES))))
        except LawTextError as error:
            raise CommandError(f"{file} is no valid law", error.why, error.do) from None
    found = []
    if channel is not None:
        async with sovereign(directory, who, channel) as office:
            for file, one in laws:
                found += [(file, finding) for finding in await office.review_law(one.text)]
    else:
        for file, one in laws:
            others = [_as_in_force(law) for _, law in laws if law is not one]
            found += [(file, finding) for finding in conflicts(one, others)]
    errors = sum(finding.severity == "error" for _, finding in found)
    lines = [f"{file}, {finding.text()}" for file, finding in found]
    lines.append(f"{len(laws)} checked: {errors} errors, {len(found) - errors} warnings")
    data = [{"file": str(file), **finding.model_dump(mode="json", exclude_none=True)} for file, finding in found]
    Output(as_json=json_output).result({"errors": errors, "findings": data}, *lines)
    return problems.EXIT_FINDINGS if errors else None


@law.command("what-if")
@command
async def what_if(
    draft: Annotated[Path, typer.Argument(help="A draft: a law in Cedar with its header comments.")],
    channel: Channel,
    directory: Directory = DEFAULT_DIRECTORY,
    everything: Annotated[bool, typer.Option("--all", help="Show the decisions that stay the same too.")] = False,
    json_output: Json = False,
) -> int | None:
    """Decide every decision of a channel again as if a draft had been law, and report what would change.

    Exit code 5 when the ledger itself is not in order: then its decisions prove nothing.
    """
    from sovchain import audit
    from sovchain.cli.audit_commands import chosen_channels
    from sovchain.network.stored import stored_blocks
    from sovchain.sovereign import check_law, read_text_file

    out = Output(as_json=json_output)
    law_text = check_law(read_text_file(draft, _TEXT_MAX_BYTES))
    chosen_channels(directory, [channel])
    with out.progress("what if") as progress:
        report, found = await asyncio.to_thread(
            audit.what_if,
            stored_blocks(directory, channel),
            law_text,
            progress=lambda done: progress(channel, done, None),
        )
    shown = [one for one in found if one.changed or everything]
    changed = sum(one.changed for one in found)
    data = {"ok": report.ok, "decisions": len(found), "changed": changed, "shown": [asdict(one) for one in shown]}
    header = law_text.header
    rows = [(one.block, one.msp_id, one.purpose, one.before, one.after, "; ".join(one.reasons)) for one in shown]
    title = f"{changed} of {len(found)} decisions would change under {header.law} version {header.version}"
    out.table(data, title, ("block", "who", "purpose", "was", "would be", "because"), rows)
    if not report.ok:
        out.say(f"the ledger is not in order: {report.findings[0]}")
        return problems.EXIT_FINDINGS
    return None

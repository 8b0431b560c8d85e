"""A law that is not valid is refused with the place of its fault."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from memory_ledger import LAW, law

from sovchain.contracts.core.cedartext import (
    NESTING_MAX,
    OPERATORS_MAX,
    POLICIES_MAX,
    TEXT_MAX_BYTES,
    CedarTextError,
    position,
    tokens,
)
from sovchain.contracts.core.lawtext import HEADER_FIELDS, read_law

ANNOTATED = '@c("art. 1")\n'
PERMIT = ANNOTATED + "permit (principal, action, resource);"


def fault(text: str) -> CedarTextError:
    with pytest.raises(CedarTextError) as caught:
        read_law(text)
    return caught.value


def fault_in(policies: str) -> CedarTextError:
    """The fault of a law whose policies begin on line 8, the effect of the first on line 9."""
    return fault(law(policies))


@pytest.mark.parametrize(
    ("policy", "line", "column", "word"),
    [
        ("permitt (principal, action, resource);", 9, 1, "permitt"),
        ("permit (principal action, resource);", 9, 19, "action"),
        ("permit (principal, action);", 8, 1, "scope"),
        ("permit (principal, action, resource)", 9, 37, "`;`"),
        ("permit (principal, action, resource", 9, 36, "`;`"),
        ("permit (principal, action, resource) when { };", 9, 38, "cannot be empty"),
        ("permit (principal, action, resource) when { 1 == 1 ;", 9, 52, "`;`"),
        ("permit (principal, action, resource)\nwhen { (1 == 1 };", 10, 8, "`(` is not closed"),
        ("permit (principal, action, resource)\nwhen { 1 == 1) };", 10, 14, "`)`"),
        ("permit (principal, action, resource)\nwhen {\n  1 = 1\n};", 11, 5, "'='"),
        ("permit (principal, action, resource)\nwhen {\n  1 == 1 &&\n};", 12, 1, "`}`"),
        ('permit (principal, action == Action::"read, resource);\n', 9, 38, "never closed"),
        ("permit (principal, action, resource);\n#", 10, 1, "'#'"),
        ("permit (principal, action, resource);\n  \u00a7", 10, 3, "xa7"),
        ("permit (principal, action, resource) when { 99999999999999999999 == 1 };", 9, 45, "integer"),
        ('permit (principal, action == Action::"steal", resource);', 9, 38, "unknown action `steal`: known are read"),
        ('permit (principal, action, resource)\nwhen { context.purpose == Purpose::"gossip" };', 10, 27, "gossip"),
        ('permit (principal, action, resource)\nwhen { context.purpos == Purpose::"statistics" };', 10, 16, "purpos"),
        ("permit (principal, action, resource)\nwhen { resource.nosuch == 1 };", 10, 17, "nosuch"),
        ('permit (principal, action, resource)\nwhen { principal in Kingdom::"x" };', 10, 21, "Kingdom"),
        ('permit (principal, action, resource)\nwhen { resource.rows == "many" };', 8, 1, "type"),
        ("permit (principal, action, resource)\nwhen { context has purpose };", 10, 16, "not allowed"),
        ('permit (principal, action, resource)\nwhen { principal.hasTag("x") };', 10, 18, "not allowed"),
        ("permit (principal == ?principal, action, resource);", 9, 22, "template"),
    ],
)
def test_a_fault_of_a_policy_has_its_line_and_column(policy: str, line: int, column: int, word: str) -> None:
    found = fault_in(ANNOTATED + policy)
    assert (found.line, found.column) == (line, column), found.message
    assert word in found.message


@pytest.mark.parametrize(
    ("annotations", "word"),
    [
        ("", '@law("...")'),
        ('@law("T-1")', '@version("...")'),
        ('@law("T-1") @version("1")', '@clause("...")'),
        ('@law("T-1") @version("1") @clause("")', '@clause("...")'),
        ('@law("T-1") @version("1") @clause', '@clause("...")'),
        ('@law("T-2") @version("1") @clause("x")', "`T-1`"),
        ('@law("T-1") @version("01") @clause("x")', "`1`"),
        ('@law("T-1") @version("1") @clause("x\\n")', "plain characters"),
        ('@law("T-1") @version("1") @clause("x\u202e")', "plain characters"),
        (f'@law("T-1") @version("1") @clause("{"x" * 101}")', "plain characters"),
    ],
)
def test_every_policy_is_cited_by_law_version_and_clause(annotations: str, word: str) -> None:
    found = fault_in(f"{annotations}\npermit (principal, action, resource);")
    assert word in found.message
    assert found.line in {8, 9}


def test_a_clause_is_cited_by_one_policy_only() -> None:
    found = fault_in(f"{PERMIT}\n\n{PERMIT}")
    assert (found.line, found.clause) == (11, "art. 1")
    assert "line 8" in found.message


def test_a_law_without_a_policy_is_none() -> None:
    assert "no policy" in fault_in("// nothing").message


@pytest.mark.parametrize("name", HEADER_FIELDS)
def test_each_line_of_the_header_stands_there_once(name: str) -> None:
    lines = law(PERMIT).splitlines(keepends=True)
    at = next(number for number, line in enumerate(lines) if line.startswith(f"// {name}:"))
    assert name in fault("".join(lines[:at] + lines[at + 1 :])).message
    twice = fault("".join([*lines[: at + 1], lines[at], *lines[at + 1 :]]))
    assert (twice.line, twice.message) == (at + 2, f"the header has `{name}` twice")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("law", "t-1"),
        ("law", "T-1 "[:1]),
        ("version", "0"),
        ("version", "1.5"),
        ("version", "-1"),
        ("version", "１"),
        ("version", "1000000"),
        ("title", ""),
        ("title", "a\u202eb"),
        ("level", "county"),
        ("level", "nation"),  # of a city's jurisdiction
        ("jurisdiction", "CN-GΖ"),
        ("jurisdiction", "CN"),  # at a city's level
        ("effective-from", "soon"),
        ("effective-from", "2026-01-01"),
        ("effective-from", "2026-01-01T00:00:00"),
        ("effective-from", "2026-02-30T00:00:00Z"),
        ("effective-from", "0001-01-01T00:00:00+08:00"),
        ("effective-from", "9999-12-31T23:59:59-08:00"),
    ],
)
def test_a_malformed_line_of_the_header_is_named(name: str, value: str) -> None:
    lines = law(PERMIT).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith(f"// {name}:"))
    lines[at] = f"// {name}: {value}"
    found = fault("\n".join(lines))
    assert found.line == at + 1 or name in {"level", "jurisdiction"}
    assert name.split("-")[0] in found.message or value in found.message


# Limits --------------------------------------------------------------------------------------------------------------


def with_condition(condition: str) -> str:
    return law(f"{ANNOTATED}permit (principal, action, resource) when {{ {condition} }};")


def test_brackets_nest_to_the_limit_and_no_deeper() -> None:
    free = NESTING_MAX - 1  # the braces of the condition are one
    read_law(with_condition("(" * free + "true" + ")" * free))
    assert "nested deeper" in fault(with_condition("(" * (free + 1) + "true" + ")" * (free + 1))).message
    assert "nested deeper" in fault(with_condition("[" * 40_000)).message


def test_a_policy_has_operators_to_the_limit_and_no_more() -> None:
    read_law(with_condition("!" * 4 + "true" + " && true" * (OPERATORS_MAX - 4)))
    assert "operators" in fault(with_condition("true" + " && true" * (OPERATORS_MAX + 1))).message
    assert "operators" in fault(with_condition("!" * 30_000 + "true")).message


def test_a_law_has_policies_to_the_limit_and_no_more() -> None:
    def many(count: int) -> str:
        clauses = (f'@law("T-1") @version("1") @clause("{n}")' for n in range(count))
        return law("\n".join(f"{one} permit(principal,action,resource);" for one in clauses))

    assert len(read_law(many(POLICIES_MAX)).clauses) == POLICIES_MAX
    found = fault(many(POLICIES_MAX + 1))
    assert (found.line, str(POLICIES_MAX) in found.message) == (8 + POLICIES_MAX, True)


def test_a_text_has_bytes_to_the_limit_and_no_more() -> None:
    text = law(PERMIT)
    filler = "\n//" + "市" * ((TEXT_MAX_BYTES - len(text) - 3) // 3)
    filler += "x" * (TEXT_MAX_BYTES - len((text + filler).encode()))
    assert len((text + filler).encode()) == TEXT_MAX_BYTES
    read_law(text + filler)
    assert "longer than 64 KiB" in fault(text + filler + "x").message


def test_half_a_surrogate_pair_is_refused() -> None:
    assert "surrogate" in fault(law(PERMIT) + "// \ud800").message


# Properties ----------------------------------------------------------------------------------------------------------

TOKENS = list(tokens(LAW))
FAULTS = ("§", '"', "(", ")", "{", "}", "@", "&&", "==", "::", "`", "\x00", "'", "permit", "1 1")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(TOKENS) - 1), st.sampled_from(FAULTS))
def test_a_fault_anywhere_is_found_in_its_policy_not_after_the_next_words(index: int, wrong: str) -> None:
    """A reader reads on to the second word behind a fault at most, but for a bracket that may close later."""
    at = TOKENS[index].start
    found = fault(f"{LAW[:at]}{wrong} {LAW[at:]}")
    begins = max((token.end for token in TOKENS if token.text == ";" and token.end <= at), default=0)
    first, _ = position(LAW, begins)
    ahead = TOKENS[min(index + 2, len(TOKENS) - 1)].start
    if wrong in "(){}":
        ahead = next(token.end for token in TOKENS if token.text == ";" and token.start >= at)
    assert first <= found.line <= position(LAW, ahead)[0], found.message
    assert 1 <= found.column <= len(f"{LAW}{wrong}".split("\n")[found.line - 1]) + len(wrong) + 2


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(LAW)), st.text(max_size=8), st.integers(0, 8))
def test_whatever_is_typed_into_a_law_it_is_read_or_refused_with_a_place(at: int, typed: str, removed: int) -> None:
    text = LAW[:at] + typed + LAW[at + removed :]
    try:
        read_law(text)
    except CedarTextError as error:
        assert 1 <= error.line <= text.count("\n") + 1
        assert error.column >= 1
        assert error.message

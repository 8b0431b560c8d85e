"""Reading Cedar text by hand, as far as Cedar's own library does not say where in the text a fault lies.

The library parses and judges; this module only finds places: it splits a text into tokens and policies, so that a
fault gets a line and a column, and bounds what the parser is given, because its recursion ends in a crash.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import cedarpy

TEXT_MAX_BYTES: Final = 64 * 1024
"""Longest text of one law."""
POLICIES_MAX: Final = 500
"""Most policies of one law."""
NESTING_MAX: Final = 16
"""Deepest nesting of brackets within a policy."""
OPERATORS_MAX: Final = 100
"""Most operators of one policy. Each may cost the evaluator a level of recursion, and no decision may hang on a stack's
size."""

_TOKEN = re.compile(
    r"""(?P<blank>\s+|//[^\r\n]*)
      | (?P<string>"(?:\\.|[^"\\])*")
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<slot>\?[a-z]+)
      | (?P<number>[0-9]+)
      | (?P<sign>::|==|!=|<=|>=|&&|\|\||[@(){}\[\],;:.<>!+*=/%?-])""",
    re.VERBOSE | re.DOTALL | re.ASCII,
)
_PAIRS: Final = {"(": ")", "[": "]", "{": "}"}
_OPENING: Final = frozenset(_PAIRS)
_CLOSING: Final = frozenset(_PAIRS.values())
_OPERATORS: Final = frozenset(
    {"==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", ".", "if", "in", "like", "is", "has"}
)
_END_OF_INPUT: Final = "unexpected end of input"
_QUOTED = re.compile(r"[`']([^`']+)[`']")


class CedarTextError(ValueError):
    """A law's text is not acceptable. `line` and `column` count from 1; `clause` is empty where none is meant."""

    def __init__(self, message: str, line: int, column: int, *, clause: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.clause = clause


@dataclass(frozen=True, slots=True)
class Token:
    """One token and where it starts and ends in the text."""

    kind: Literal["string", "word", "slot", "number", "sign"]
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class PolicyText:
    """One policy: its tokens, annotations, effect, and the actions that its scope names (None: every action)."""

    tokens: tuple[Token, ...]
    annotations: dict[str, str]
    effect: Literal["permit", "forbid"]
    effect_token: Token
    actions: frozenset[str] | None
    line: int
    column: int

    @property
    def clause(self) -> str:
        """The clause that the policy is annotated with, empty without one."""
        return self.annotations.get("clause", "")


def position(text: str, offset: int) -> tuple[int, int]:
    """Line and column of an offset, both from 1."""
    return text.count("\n", 0, offset) + 1, offset - (text.rfind("\n", 0, offset) + 1) + 1


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a text, without blanks and comments. Raises CedarTextError for a character that starts none."""
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            line, column = position(text, at)
            if text[at] == '"':
                raise CedarTextError("a string is opened here and never closed", *_opening_quote(text, at))
            raise CedarTextError(f"unexpected character {text[at]!a}", line, column)
        if found.lastgroup != "blank":
            yield Token(found.lastgroup, found.group(), at, found.end())  # type: ignore[arg-type]  # the pattern's groups
        at = found.end()


def _opening_quote(text: str, offset: int) -> tuple[int, int]:
    """The place of the quote that is not closed, when the one at `offset` is left over at the end of the text.

    A forgotten quote turns every later string inside out, so that the last one is left over. The forgotten one is on the
    first line whose string does not end on it.
    """
    at = 0
    while at < offset:
        found = _TOKEN.match(text, at)
        assert found is not None  # the text up to the offset was matched already
        if found.lastgroup == "string" and "\n" in found.group():
            return position(text, at)
        at = found.end()
    return position(text, offset)


def statements(text: str) -> list[list[Token]]:
    """The tokens of each policy, its semicolon included. The last list may lack one: it is for the parser to refuse.

    Raises CedarTextError for text over a limit.
    """
    if len(text.encode("utf-8", "surrogatepass")) > TEXT_MAX_BYTES:
        raise CedarTextError(f"the text is longer than {TEXT_MAX_BYTES // 1024} KiB", 1, 1)
    found: list[list[Token]] = [[]]
    for token in tokens(text):
        found[-1].append(token)
        if token.text == ";":
            found.append([])
    if not found[-1]:
        found.pop()
    if len(found) > POLICIES_MAX:
        line, column = position(text, found[POLICIES_MAX][0].start)
        raise CedarTextError(f"more than {POLICIES_MAX} policies", line, column)
    for statement in found:
        _check_bounds(text, statement)
    return found


def _check_bounds(text: str, statement: Sequence[Token]) -> None:
    depth = operators = 0
    for token in statement:
        if token.kind == "string":
            continue
        depth += _nesting(token)
        operators += token.text in _OPERATORS
        problem = (
            f"brackets are nested deeper than {NESTING_MAX}"
            if depth > NESTING_MAX
            else f"a policy has more than {OPERATORS_MAX} operators"
            if operators > OPERATORS_MAX
            else ""
        )
        if problem:
            line, column = position(text, token.start)
            raise CedarTextError(f"{problem}: split the policy", line, column)


def _nesting(token: Token) -> int:
    """By how much a token changes the depth of brackets."""
    return 0 if token.kind == "string" else (token.text in _OPENING) - (token.text in _CLOSING)


def parse_policies(text: str) -> list[PolicyText]:
    """Parse a text with Cedar and describe its policies in their order.

    Templates and `has` are refused: the first decide nothing, and with the second a missing attribute could turn a
    denial into a permit. Raises CedarTextError with the place of the first fault.
    """
    split = statements(text)
    try:
        cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        raise _locate(text, split, str(error)) from None
    return [_describe(text, statement) for statement in split]


def _describe(text: str, statement: Sequence[Token]) -> PolicyText:
    annotations: dict[str, str] = {}
    at = 0
    while statement[at].text == "@":
        name, value = statement[at + 1].text, ""
        at += 2
        if statement[at].text == "(":
            value = statement[at + 1].text[1:-1]
            at += 3
        annotations[name] = value
    effect = statement[at]
    line, column = position(text, statement[0].start)
    clause = annotations.get("clause", "")
    for token in statement[at:]:
        problem = (
            "a template decides nothing: name the principal or resource"
            if token.kind == "slot"
            else f"`{token.text}` is not allowed: a missing attribute must deny, so use the attribute itself"
            if token.kind == "word" and token.text in {"has", "hasTag"}
            else ""
        )
        if problem:
            raise CedarTextError(problem, *position(text, token.start), clause=clause)
    return PolicyText(
        tuple(statement),
        annotations,
        "permit" if effect.text == "permit" else "forbid",
        effect,
        _actions(statement[at + 1 :]),
        line,
        column,
    )


def _actions(scope: Sequence[Token]) -> frozenset[str] | None:
    """The action ids in a policy's scope: the second of the three parts in the first pair of parentheses."""
    depth, part = 0, 0
    named: set[str] = set()
    for token in scope:
        depth += _nesting(token)
        if depth == 0:
            break
        if depth == 1 and token.text == ",":
            part += 1
        elif part == 1 and token.kind == "string":
            named.add(token.text[1:-1])
    return frozenset(named) or None


def _message_after(text: str) -> str | None:
    try:
        cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        return str(error)
    return None


def _locate(text: str, split: Sequence[Sequence[Token]], message: str) -> CedarTextError:
    """Find the place of a parser's error: the library gives none.

    The first policy that does not parse by itself holds it. In there the fault is within the shortest run of tokens
    from the start that, closed with a semicolon, fails with the same message: a shorter run fails for being cut off.
    More tokens never mend a fault, so that run is found by bisection. An unexpected token is the last of that run; any
    other fault is at the token that the message quotes.
    """
    for statement in split:
        start = statement[0].start
        found = _message_after(text[start : statement[-1].end])
        if found is None:
            continue
        if found.startswith(_END_OF_INPUT):
            return CedarTextError(
                "unexpected end of the law: a policy ends with `;`", *position(text, statement[-1].end)
            )
        # A missing token shows at the semicolon itself, which then tells nothing about a shorter run.
        low, high = (len(statement) if found.endswith("`;`") else 1), len(statement)
        while low < high:
            middle = (low + high) // 2
            if _message_after(text[start : statement[middle - 1].end] + ";") == found:
                high = middle
            else:
                low = middle + 1
        at = _quoted_token(statement[:low], found)
        unclosed = _unclosed_bracket(statement, at)
        if unclosed is not None:
            return CedarTextError(f"the bracket `{unclosed.text}` is not closed", *position(text, unclosed.start))
        return CedarTextError(found, *position(text, at.start))
    return CedarTextError(message, 1, 1)


def _unclosed_bracket(statement: Sequence[Token], at: Token) -> Token | None:
    """The innermost bracket that is open where a closing one is at fault, if the policy has too many of its kind."""
    if _nesting(at) >= 0:
        return None
    opened: list[Token] = []
    for token in statement[: statement.index(at)]:
        if _nesting(token) > 0:
            opened.append(token)
        elif _nesting(token) < 0 and opened:
            opened.pop()
    if not opened:
        return None
    signs = [token.text for token in statement if token.kind == "sign"]
    last = opened[-1]
    return last if signs.count(last.text) > signs.count(_PAIRS[last.text]) else None


def place_named(text: str, policy: PolicyText, message: str) -> tuple[int, int]:
    """Where a message on a policy points to: at the one place that it quotes, else at the start of the policy."""
    for quoted in _QUOTED.findall(message):
        found = [*_runs(policy.tokens, quoted), *_runs(policy.tokens, f'"{quoted}"')]
        if len(found) == 1:
            return position(text, found[0].start)
    return policy.line, policy.column


def _runs(within: Sequence[Token], quoted: str) -> list[Token]:
    """The first token of each place at which a quoted piece of text stands."""
    words = [token.text for token in _tokens_or_none(quoted)]
    return [
        within[at]
        for at in range(len(within) - len(words) + 1 if words else 0)
        if [token.text for token in within[at : at + len(words)]] == words
    ]


def _quoted_token(statement: Sequence[Token], message: str) -> Token:
    if message.startswith("unexpected token"):
        return statement[-1]
    if message.startswith("integer parse error"):
        return max((token for token in statement if token.kind == "number"), key=lambda token: len(token.text))
    for quoted in [*_QUOTED.findall(message), message.rsplit(" ", 1)[-1]]:
        found = _runs(statement, quoted)
        if found:
            return found[0]
        for token in statement:
            if quoted in token.text:
                return token
    return statement[0]


def _tokens_or_none(text: str) -> list[Token]:
    try:
        return list(tokens(text))
    except CedarTextError:
        return []

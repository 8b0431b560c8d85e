"""Refuses, or reports, what differs between peers while a transaction runs in this process.

It changes the names that the modules of the contracts see, and nothing else: `time` in a contract's module becomes a guarded
stand-in of the module `time`, `open` a guarded builtin, and so on, by the table of `rules`. The runtime, the standard library
and what a contract's libraries do inside are left alone. Outside a transaction the stand-ins do what the originals do.

What it cannot see: the order of sets and floats (the test ledger and canonical JSON find these), and libraries that use a
clock by themselves. `sovchain chaincode lint` names what the guard would, before anything runs.
"""

from __future__ import annotations

import builtins
import sys
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, datetime
from functools import wraps
from typing import Any, Final, Literal

from sovchain.chaincode.determinism.rules import FORBIDDEN, Rule, rule_of
from sovchain.chaincode.errors import DeterminismError
from sovchain.rpc.log import Log

DeterminismMode = Literal["off", "warn", "refuse"]
MODES: Final[tuple[DeterminismMode, ...]] = ("off", "warn", "refuse")

_PASSED: Final = frozenset({"float", "globals", "map-order", "set-order", "locale"})
"""Rules that no mention of a name breaks by itself at run time, or that would stop what works: the lint has them."""
_UNGUARDED: Final = frozenset({"builtins.__import__", "asyncio.get_running_loop", "builtins.compile"})
log = Log("sovchain.chaincode.determinism")


class Watch:
    """What one transaction was caught at."""

    def __init__(self, mode: DeterminismMode, transaction_id: str) -> None:
        self.mode = mode
        self.transaction_id = transaction_id
        self.first: DeterminismError | None = None

    def caught(self, used: str, rule: Rule) -> None:
        """Note a use; raise DeterminismError if that is to be refused."""
        error = DeterminismError(rule.name, used, rule.instead)
        log.warning("not deterministic", rule=rule.name, used=used, transaction_id=self.transaction_id)
        if self.mode == "refuse":
            self.first = self.first or error
            raise error


_watch: ContextVar[Watch | None] = ContextVar("sovchain determinism watch", default=None)


@contextmanager
def watching(mode: DeterminismMode, transaction_id: str) -> Iterator[None]:
    """Watch what the contract does inside the block.

    Raises:
        DeterminismError: at the end too, when the contract has caught the first one.
    """
    if mode == "off":
        yield
        return
    watch = Watch(mode, transaction_id)
    token = _watch.set(watch)
    try:
        yield
    finally:
        _watch.reset(token)
        if watch.first is not None and not isinstance(sys.exc_info()[1], DeterminismError):
            raise watch.first


def guard_modules(names: Iterable[str]) -> None:
    """Guard what these modules, and those of the same packages that are loaded, see. May be called again."""
    packages = {_package(name) for name in names}
    for name, module in list(sys.modules.items()):
        if _package(name) in packages and isinstance(module, types.ModuleType):
            _guard_module(module)
    _guard_import(packages)


def _package(name: str) -> str:
    """The outermost package of a module that is one: below a namespace, which many distributions share, its part."""
    parts = name.split(".")
    for length in range(1, len(parts)):
        outer = ".".join(parts[:length])
        if getattr(sys.modules.get(outer), "__file__", None) is not None:
            return outer
    return name


def _guard_module(module: types.ModuleType) -> None:
    names = vars(module)
    for name, value in list(names.items()):
        if not name.startswith("__"):
            stand_in = _stand_in(value)
            if stand_in is not value:
                names[name] = stand_in
    for dotted, rule in FORBIDDEN.items():
        owner, _, short = dotted.rpartition(".")
        if owner == "builtins" and _is_guarded(dotted, rule):
            names.setdefault(short, _guarded_call(getattr(builtins, short), short, rule))


def _is_guarded(dotted: str, rule: Rule) -> bool:
    return rule.name not in _PASSED and dotted not in _UNGUARDED


_MODULES: Final = {dotted.partition(".")[0] for dotted, rule in FORBIDDEN.items() if _is_guarded(dotted, rule)} - {
    "builtins"
}


def _stand_in(value: Any) -> Any:
    """What a contract's module sees instead of a value; the value itself if there is nothing to guard."""
    if isinstance(value, GuardedModule):
        return value
    if isinstance(value, types.ModuleType):
        return GuardedModule(value) if value.__name__.partition(".")[0] in _MODULES else value
    if value is datetime:
        return _GuardedDatetime
    if value is date:
        return _GuardedDate
    dotted = _dotted(value)
    hit = rule_of(dotted) if dotted else None
    if hit is None or not _is_guarded(hit[0], hit[1]):
        return value
    if isinstance(value, types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return _guarded_call(value, hit[0], hit[1])
    if isinstance(value, type) and not issubclass(value, BaseException):
        return _GuardedType(value.__name__, (), {"real": value, "name": dotted, "rule": hit[1]})
    return value


def _dotted(value: Any) -> str:
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if module is None and isinstance(owner := getattr(value, "__self__", None), object) and owner is not None:
        module = type(owner).__module__  # functions of `random` are methods of a hidden instance
        return f"{module}.{getattr(value, '__name__', '')}" if isinstance(module, str) else ""
    if not isinstance(module, str) or not isinstance(name, str):
        return ""
    if module == "random":
        return "random"
    return f"{_PUBLIC.get(module, module)}.{name}"


_PUBLIC: Final = {"posix": "os", "nt": "os", "_io": "io", "_random": "random", "_datetime": "datetime"}


def _guarded_call(original: Callable[..., Any], name: str, rule: Rule) -> Callable[..., Any]:
    @wraps(original)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        watch = _watch.get()
        if watch is not None:
            watch.caught(name, rule)
        return original(*args, **kwargs)

    return guarded


class GuardedModule(types.ModuleType):
    """A module as the modules of contracts see it."""

    def __init__(self, real: types.ModuleType) -> None:
        super().__init__(real.__name__, real.__doc__)
        self.__dict__["_real"] = real

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__"):
            return super().__getattribute__(name)
        real = super().__getattribute__("__dict__")["_real"]
        value = getattr(real, name)
        dotted = f"{real.__name__}.{name}"
        hit = rule_of(dotted)
        watch = _watch.get()
        if hit is not None and watch is not None and _is_guarded(*hit):
            watch.caught(hit[0] if hit[0] == dotted else dotted, hit[1])
        if value is datetime or value is date or isinstance(value, types.ModuleType):
            return _stand_in(value)
        return value

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(super().__getattribute__("__dict__")["_real"], name, value)

    def __dir__(self) -> list[str]:
        return dir(super().__getattribute__("__dict__")["_real"])


class _Kind(type):
    """Makes a guarded class answer for the real one: `isinstance` of a plain datetime holds."""

    real: type

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls.real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.real)


class _GuardedType(_Kind):
    """Makes a class that stands in for one that a contract must not use, such as `pathlib.Path`."""

    name: str
    rule: Rule

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        watch = _watch.get()
        if watch is not None:
            watch.caught(cls.name, cls.rule)
        return cls.real(*args, **kwargs)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        watch = _watch.get()
        if watch is not None:
            watch.caught(f"{cls.name}.{name}", cls.rule)
        return getattr(cls.real, name)


def _check(name: str) -> None:
    watch = _watch.get()
    if watch is not None:
        watch.caught(name, FORBIDDEN[name])


class _GuardedDatetime(datetime, metaclass=_Kind):
    """datetime.datetime without a clock; what it makes are plain datetimes."""

    real = datetime

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return datetime(*args, **kwargs)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        _check("datetime.datetime.now")
        return datetime.now(tz)

    @classmethod
    def utcnow(cls) -> Any:
        _check("datetime.datetime.utcnow")
        return datetime.utcnow()

    @classmethod
    def today(cls) -> Any:
        _check("datetime.datetime.today")
        return datetime.today()

    @classmethod
    def fromisoformat(cls, text: str, /) -> Any:
        return datetime.fromisoformat(text)

    @classmethod
    def fromtimestamp(cls, timestamp: float, tz: Any = None) -> Any:
        return datetime.fromtimestamp(timestamp, tz)

    @classmethod
    def strptime(cls, text: str, pattern: str, /) -> Any:
        return datetime.strptime(text, pattern)

    @classmethod
    def combine(cls, *args: Any, **kwargs: Any) -> Any:
        return datetime.combine(*args, **kwargs)


class _GuardedDate(date, metaclass=_Kind):
    """datetime.date without a clock."""

    real = date

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return date(*args, **kwargs)

    @classmethod
    def today(cls) -> Any:
        _check("datetime.date.today")
        return date.today()

    @classmethod
    def fromisoformat(cls, text: str, /) -> Any:
        return date.fromisoformat(text)


_packages: set[str] = set()
_lock = threading.Lock()
_real_import = builtins.__import__


def _guard_import(packages: set[str]) -> None:
    """Guard imports inside the functions of the packages too."""
    with _lock:
        _packages.update(packages)
        if builtins.__import__ is not _import:
            builtins.__import__ = _import


def _import(
    name: str,
    globals: Any = None,  # noqa: A002  the signature of __import__
    locals: Any = None,  # noqa: A002
    fromlist: Any = (),
    level: int = 0,
) -> Any:
    found = _real_import(name, globals, locals, fromlist, level)
    if _watch.get() is None or not isinstance(globals, dict):
        return found
    if _package(str(globals.get("__name__", ""))) not in _packages:
        return found
    return _stand_in(found)

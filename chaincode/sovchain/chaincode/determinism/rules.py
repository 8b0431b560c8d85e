"""What differs between peers, by its dotted name, and what a contract uses instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to make endorsements differ.

    Attributes:
        name: as findings and suppressions call it.
        what: what is wrong with it.
        instead: what to use instead.
    """

    name: str
    what: str
    instead: str


RULES: Final[dict[str, Rule]] = {
    rule.name: rule
    for rule in (
        Rule("clock", "each peer has its own clock", "use ctx.timestamp"),
        Rule(
            "random",
            "each peer draws other numbers",
            "let the client send randomness as a Transient parameter, or derive it from ctx.transaction_id",
        ),
        Rule(
            "uuid",
            "each peer makes another id",
            "derive ids from ctx.transaction_id, or take uuid5 over a name",
        ),
        Rule(
            "environment",
            "each peer's machine says something else",
            "pass settings to the contract's constructor, or keep them in state",
        ),
        Rule("files", "each peer has its own files", "ship constants as code, or keep data in state"),
        Rule(
            "network",
            "what a remote system answers differs between calls",
            "let the client fetch it and send it as an argument, or keep it in state",
        ),
        Rule(
            "threads",
            "the order in which threads, processes and tasks run differs",
            "call in order; a method without async may use ctx.blocking",
        ),
        Rule(
            "set-order",
            "the order of a set follows the hash seed",
            "iterate over sorted(...), or keep a list or a dict",
        ),
        Rule(
            "map-order",
            "the order of these entries is not fixed",
            "iterate over sorted(...), or write canonical JSON: ctx.set_event, results and records do",
        ),
        Rule("hash-seed", "hash values and addresses differ between processes", "use hashlib over canonical bytes"),
        Rule(
            "float",
            "floats round and print differently, and state refuses them",
            "use int in the smallest unit (//, divmod), or Decimal",
        ),
        Rule(
            "globals",
            "what one process remembers, another does not know",
            "keep it in state; settings that never change go into constants or the constructor",
        ),
        Rule("locale", "the machine's locale and time zone differ", "use UTC and fixed formats"),
        Rule("dynamic", "code that is chosen at run time cannot be checked", "call what you mean by its name"),
    )
}

SUPPRESSION: Final = Rule(
    "suppression",
    "a suppression is not as it should be",
    "write `# sovchain: allow[rule] reason` at the end of the line",
)
SYNTAX: Final = Rule("syntax", "the file is no Python", "correct it")

_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "clock": (
        "time.time",
        "time.time_ns",
        "time.monotonic",
        "time.monotonic_ns",
        "time.perf_counter",
        "time.perf_counter_ns",
        "time.process_time",
        "time.process_time_ns",
        "time.thread_time",
        "time.clock_gettime",
        "time.localtime",
        "time.gmtime",
        "time.ctime",
        "time.asctime",
        "time.sleep",
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.datetime.today",
        "datetime.date.today",
        "asyncio.sleep",
        "asyncio.timeout",
        "asyncio.wait_for",
        "timeit",
        "sched",
    ),
    "random": ("random", "secrets", "os.urandom", "os.getrandom", "numpy.random", "ssl.RAND_bytes"),
    "uuid": ("uuid.uuid1", "uuid.uuid4", "uuid.getnode", "uuid.SafeUUID"),
    "environment": (
        "os.environ",
        "os.environb",
        "os.getenv",
        "os.getenvb",
        "os.putenv",
        "os.getpid",
        "os.getppid",
        "os.getlogin",
        "os.getuid",
        "os.getcwd",
        "os.uname",
        "os.cpu_count",
        "os.getloadavg",
        "os.times",
        "sys.argv",
        "sys.platform",
        "sys.version",
        "sys.version_info",
        "sys.stdin",
        "platform",
        "getpass",
        "resource",
        "pwd",
        "psutil",
        "builtins.input",
    ),
    "files": (
        "builtins.open",
        "io.open",
        "os.open",
        "os.listdir",
        "os.scandir",
        "os.walk",
        "os.stat",
        "os.path.exists",
        "os.path.getmtime",
        "os.path.getsize",
        "os.path.isfile",
        "os.path.isdir",
        "pathlib",
        "glob",
        "shutil",
        "tempfile",
        "sqlite3",
        "dbm",
        "shelve",
        "fileinput",
        "linecache",
        "mmap",
    ),
    "network": (
        "socket",
        "http",
        "urllib.request",
        "requests",
        "httpx",
        "aiohttp",
        "urllib3",
        "grpc",
        "ftplib",
        "smtplib",
        "poplib",
        "imaplib",
        "telnetlib",
        "xmlrpc",
        "socketserver",
        "ssl",
        "asyncio.open_connection",
        "asyncio.start_server",
        "select",
        "selectors",
        "redis",
        "psycopg",
        "boto3",
    ),
    "threads": (
        "threading",
        "_thread",
        "multiprocessing",
        "concurrent.futures",
        "subprocess",
        "signal",
        "queue",
        "os.fork",
        "os.system",
        "os.popen",
        "os.kill",
        "asyncio.create_task",
        "asyncio.ensure_future",
        "asyncio.to_thread",
        "asyncio.run",
        "asyncio.as_completed",
        "asyncio.wait",
        "asyncio.TaskGroup",
        "asyncio.get_running_loop",
        "asyncio.get_event_loop",
        "asyncio.create_subprocess_exec",
        "asyncio.create_subprocess_shell",
    ),
    "hash-seed": ("builtins.hash", "builtins.id", "sys.getrefcount", "gc", "weakref", "tracemalloc"),
    "float": (
        "builtins.float",
        "builtins.complex",
        "statistics",
        "cmath",
        *(
            f"math.{name}"
            for name in [
                "sqrt",
                "exp",
                "expm1",
                "exp2",
                "log",
                "log2",
                "log10",
                "log1p",
                "pow",
                "sin",
                "cos",
                "tan",
                "asin",
                "acos",
                "atan",
                "atan2",
                "sinh",
                "cosh",
                "tanh",
                "cbrt",
                "hypot",
                "dist",
                "fsum",
                "fmod",
                "modf",
                "frexp",
                "ldexp",
                "degrees",
                "radians",
                "erf",
                "erfc",
                "gamma",
                "lgamma",
                "pi",
                "e",
                "tau",
                "inf",
                "nan",
            ]
        ),
    ),
    "locale": ("locale", "time.tzname", "time.timezone", "time.tzset", "time.strftime", "gettext", "tzlocal"),
    "dynamic": (
        "builtins.eval",
        "builtins.exec",
        "builtins.compile",
        "builtins.__import__",
        "importlib",
        "runpy",
        "ctypes",
    ),
}

FORBIDDEN: Final[dict[str, Rule]] = {name: RULES[rule] for rule, names in _NAMES.items() for name in names}
"""Every name, of a module, of something in one, or of a builtin, with its rule."""

METHODS: Final[dict[str, Rule]] = {
    "total_seconds": RULES["float"],
    "as_integer_ratio": RULES["float"],
    "is_integer": RULES["float"],
    "read_text": RULES["files"],
    "write_text": RULES["files"],
    "read_bytes": RULES["files"],
    "write_bytes": RULES["files"],
}
"""Methods that are recognised by their names, whatever they are called on."""


def rule_of(dotted: str) -> tuple[str, Rule] | None:
    """The longest forbidden name that `dotted` is or begins with, and its rule."""
    while dotted:
        rule = FORBIDDEN.get(dotted)
        if rule is not None:
            return dotted, rule
        dotted = dotted.rpartition(".")[0]
    return None


def rules_within(module: str) -> list[Rule]:
    """The rules of what importing everything of a module would bring in."""
    whole = rule_of(module)
    if whole is not None:
        return [whole[1]]
    found = [rule for name, rule in FORBIDDEN.items() if name.rpartition(".")[0] == module]
    return sorted(set(found), key=lambda rule: rule.name)

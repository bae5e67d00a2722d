"""The shape of the code, held by reading it: who may import whom, what stays pure, what is banned.

ARCHITECTURE.md has the same directions as a table ("Packages"), which is held to them here. Each
ban carries its reason, which is what a failing test prints.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"

# What each room may import of ocgate besides itself, and why not more.
ROOMS: dict[str, tuple[set[str], str]] = {
    "outside": (set(), "every room that is told a host by somebody else uses this"),
    "names": (set(), "names and numbers depend on nothing, so that everything may use them"),
    "errors": (set(), "every room raises these; an import here would be a cycle"),
    "config": (
        {"errors", "named_files", "names", "outside"},
        "what the operator asked is read without asking the machine",
    ),
    "plan": ({"errors", "names"}, "a plan is a value: facts and intent come in as arguments"),
    "sessions": ({"errors", "names", "plan"}, "who is connected is bookkeeping, not effect"),
    "upstream": (
        {"errors", "names", "outside", "plan"},
        "what is known of gateways; the server role puts it in force",
    ),
    "tunnel": (
        {"errors", "named_files", "names", "outside", "plan"},
        "tunnel kinds and the kill switch are values; the exit node runs them",
    ),
    "named_files": (set(), "every reader of what a configuration names uses this"),
    "own_files": (set(), "every writer of the run dir uses this; it depends on nothing"),
    "supervision": (
        {"errors", "names", "own_files"},
        "how s6 is used; whose services they are is a role's",
    ),
    "ocserv": (
        {"errors", "named_files", "names", "own_files", "plan", "supervision"},
        "ocserv is one edge; it meets the kernel in the server role only",
    ),
    "kernel": (
        {"errors", "names", "own_files", "plan"},
        "the kernel applies plans; it knows no ocserv",
    ),
    "netlab": ({"errors", "names"}, "a lab that shares code with what it proves proves less"),
    "lab": (
        {"errors", "names", "netlab"},
        "a lab that shares code with what it proves proves less",
    ),
    "runtime": (
        {"config", "errors", "kernel", "names", "own_files", "plan", "sessions", "upstream"},
        "both roles stand on it, so it knows neither",
    ),
    "server": (
        {
            *{"config", "errors", "kernel", "names", "ocserv", "outside", "own_files", "plan"},
            *{"runtime", "sessions", "upstream"},
        },
        "a role serves any command, never runs on lab code, and knows no other role",
    ),
    "exit_node": (
        {
            *{"config", "errors", "kernel", "names", "outside", "own_files", "plan", "runtime"},
            *{"sessions", "supervision", "tunnel", "upstream"},
        },
        "a role serves any command, never runs on lab code, and knows no other role",
    ),
    "prove": (
        {
            *{"config", "errors", "kernel", "names", "netlab", "ocserv", "plan", "runtime"},
            *{"server", "sessions"},
        },
        "a proof runs the product in networks of its own; only its command may know it",
    ),
    "cli": (
        {
            *{"config", "errors", "exit_node", "kernel", "names", "ocserv", "plan", "prove"},
            *{"runtime", "server", "sessions"},
        },
        "commands stand above everything; networks of the lab are behind prove",
    ),
    "__main__": ({"cli"}, "the entry point only enters"),
    "compat": ({"__main__"}, "a name of others is the command line called by that name"),
}

# Modules that compute and touch nothing. A package's name stands for all its modules.
PURE = {
    "ocgate.names",
    "ocgate.errors",
    "ocgate.outside",
    "ocgate.config",
    "ocgate.plan",
    "ocgate.sessions",
    "ocgate.upstream",
    "ocgate.tunnel",
    "ocgate.compat.names",
    "ocgate.ocserv.ini_parser",
    "ocgate.ocserv.view",
    "ocgate.ocserv.fields",
    "ocgate.ocserv.reading",
    "ocgate.ocserv.release_report",
    "ocgate.ocserv.releases",
    "ocgate.ocserv.releases_page",
    "ocgate.ocserv.render",
    "ocgate.ocserv.sync",
    "ocgate.ocserv.warnings",
}
# The edges inside those packages.
NOT_PURE = {
    "ocgate.config",
    "ocgate.config.load",
    "ocgate.config.reference",
    "ocgate.upstream.resolver",
    "ocgate.tunnel.openvpn_files",
    "ocgate.tunnel.provider_fetch",
    "ocgate.tunnel.provider_list",
    "ocgate.config.exit_load",
}

IMPURE_IMPORTS = {
    "os": "the environment and files are an edge's; pass the values in",
    "subprocess": "a pure module runs nothing; return what is to be run",
    "socket": "a pure module talks to nobody; ipaddress has the address types",
    "asyncio": "waiting is the wiring's; return what is to be done next",
    "time": "a clock makes a result depend on when; pass the moment in",
    "random": "chance makes a result unrepeatable; pass the value in",
    "secrets": "chance makes a result unrepeatable; pass the value in",
}
FILE_METHODS = {
    "exists", "glob", "is_dir", "is_file", "iterdir", "lstat", "mkdir", "open", "read_bytes",
    "read_text", "readlink", "resolve", "rglob", "stat", "touch", "unlink", "write_bytes",
    "write_text",
}  # fmt: skip

# Beyond this, a module holds two nouns (style.md: 120 to 300 lines; the rest is slack for tables).
LONGEST_MODULE = 400

MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "ocgate").rglob("*.py"))
} | {f"lab.{path.stem}": path for path in sorted((ROOT / "lab").glob("[!_]*.py"))}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}
each_module = pytest.mark.parametrize("module", list(MODULES))


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that a module imports, inside functions too."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{MODULES[module]}:{node.lineno}: write the full name"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def room_of(name: str) -> str:
    """The room of a dotted name: `ocgate.plan.nft.render` -> `plan`, `lab.client` -> `lab`."""
    first, second, *_ = [*name.split("."), ""]
    return first if first == "lab" else second


def is_pure(module: str) -> bool:
    parts = module.split(".")
    prefixes = {".".join(parts[:length]) for length in range(1, len(parts) + 1)}
    return module not in NOT_PURE and bool(prefixes & PURE)


def test_the_table_in_architecture_says_the_same() -> None:
    """`names` and `errors` stand in a sentence below it."""
    text = (ROOT / "ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| ([^|]+) \|$", text, re.MULTILINE)
    told = {room: set(re.findall(r"`(\w+)`", may)) for room, may in rows if room in ROOMS}
    assert told == {room: may - {"names", "errors"} for room, (may, _) in ROOMS.items()}


@each_module
def test_a_room_imports_only_the_rooms_below_it(module: str) -> None:
    own = room_of(module)
    if not own:
        assert not [name for _, name in imports(module) if name.startswith("ocgate")]
        return
    assert own in ROOMS, f"{own} is a new room: say in ROOMS what it may import and why"
    allowed, reason = ROOMS[own]
    wrong = [
        f"{MODULES[module]}:{line}: {own} imports {name}: {reason}"
        for line, name in imports(module)
        if name.startswith(("ocgate.", "lab."))
        and room_of(name) not in {own, *allowed}
        and name != "ocgate.__version__"
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("module", [name for name in MODULES if is_pure(name)])
def test_a_pure_module_touches_nothing(module: str) -> None:
    wrong = [
        f"{MODULES[module]}:{line}: imports {name}: {IMPURE_IMPORTS[name.split('.')[0]]}"
        for line, name in imports(module)
        if name.split(".")[0] in IMPURE_IMPORTS
    ]
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call) and (called := called_name(node)) in FILE_METHODS:
            wrong.append(f"{MODULES[module]}:{node.lineno}: {called}(): files are an edge's")
    assert not wrong, "\n".join(wrong)


def called_name(node: ast.Call) -> str:
    """The last part of what is called: `a.b.open(…)` -> `open`."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


@each_module
def test_no_command_goes_through_a_shell(module: str) -> None:
    """User names are data (spaces, `$(…)`): an argument vector passes them unchanged."""
    wrong = []
    for node in ast.walk(TREES[module]):
        if not isinstance(node, ast.Call):
            continue
        words = {keyword.arg: keyword.value for keyword in node.keywords}
        shell = words.get("shell")
        if isinstance(shell, ast.Constant) and shell.value:
            wrong.append(f"{MODULES[module]}:{node.lineno}: shell=True")
        if ast.unparse(node.func) in {"os.system", "os.popen", "subprocess.getoutput"}:
            wrong.append(f"{MODULES[module]}:{node.lineno}: {ast.unparse(node.func)}")
    assert not wrong, "\n".join(wrong)


@each_module
def test_no_job_loses_its_cancellation(module: str) -> None:
    """`asyncio.wait_for` of Python 3.11 (Debian 12) swallows a cancellation that comes together
    with what is waited for: a daemon outlives its SIGTERM. `asyncio.timeout` does not."""
    calls = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.Call)]
    assert not [c.lineno for c in calls if ast.unparse(c.func) == "asyncio.wait_for"]


@each_module
def test_a_module_is_about_one_noun(module: str) -> None:
    lines = len(MODULES[module].read_text().splitlines())
    assert lines <= LONGEST_MODULE, f"{MODULES[module]} has {lines} lines; split it by noun"


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def public_definitions(module: str) -> Iterator[Definition]:
    """Public functions and classes of a module, and those public methods that need words."""
    for node in TREES[module].body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from filter(needs_words, node.body)


def needs_words(node: ast.stmt) -> bool:
    """A public method of more than one statement; of a shorter one the name says it all."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return False
    return not node.name.startswith("_") and len(node.body) > 1


@each_module
def test_what_is_public_says_what_it_is_for(module: str) -> None:
    wrong = [
        f"{MODULES[module]}:{node.lineno}: {node.name} has no docstring"
        for node in public_definitions(module)
        if not ast.get_docstring(node)
    ]
    if not ast.get_docstring(TREES[module]) and MODULES[module].read_text().strip():
        wrong.append(f"{MODULES[module]}:1: the module has no docstring")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_left_for_later() -> None:
    """What isn't done stands in an issue or in docs/known-issues.md, where somebody reads it."""
    marker = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
    wrong = [
        f"{path}:{number}: {line.strip()}"
        for path in product_files()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if marker.search(line)
    ]
    assert not wrong, "\n".join(wrong)


def product_files() -> Iterator[Path]:
    """Python and shell files of the product, its tests and its set-up."""
    for directory in ("src", "tests", "setup", "bench", "lab"):
        for path in sorted((ROOT / directory).rglob("*")):
            if path.suffix in {".py", ".sh", ".bash", ".pl", ".c"}:
                yield path
    yield from (ROOT / "ocgate", ROOT / "test", ROOT / "setup" / "fresh-machine")


# Who writes files, other than by `own_files`, and why that is safe where it does. In the run dir
# root's writer must not follow a link or open a file that somebody else put there.
WRITERS = {
    "ocgate.own_files": "this is the writer",
    "ocgate.ocserv.publish": "new files only, in a directory of its own beside",
    "ocgate.ocserv.passwd_file": "the operator's file, found by its name, and locked",
    "ocgate.server.history.file": "appends, and follows no link but root's",
    "ocgate.server.check_and_plan": "in a temporary directory of its own",
    "ocgate.tunnel.provider_list": "mkstemp and a rename, in the operator's cache",
    "ocgate.exit_node.server_list": "a temporary file of its own",
    "ocgate.kernel.sysctl": "/proc/sys",
    "ocgate.kernel.mac": "/sys",
}
WRITES = {"write_text", "write_bytes", "touch", "mkstemp", "NamedTemporaryFile", "symlink_to"}


def is_writing(node: ast.AST) -> bool:
    """A call that makes or writes a file: by name, by os.open's O_CREAT, or by open's mode."""
    if isinstance(node, ast.Attribute):
        return node.attr == "O_CREAT"
    if not isinstance(node, ast.Call):
        return False
    called = called_name(node)
    modes = [a.value for a in node.args if isinstance(a, ast.Constant) and called == "open"]
    return called in WRITES or any(isinstance(m, str) and set(m) & set("wax+") for m in modes)


@each_module
def test_files_are_written_by_the_one_writer(module: str) -> None:
    if room_of(module) in ("lab", "netlab", "prove", "cli") or module in WRITERS:
        return
    wrong = [node.lineno for node in ast.walk(TREES[module]) if is_writing(node)]  # type: ignore[attr-defined]
    assert not wrong, f"{MODULES[module]}: lines {wrong}: write files of ours by own_files.write"

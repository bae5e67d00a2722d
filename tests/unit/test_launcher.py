"""The launcher and the set-up, in copies of the checkout whose needs are made up.

A copy has its own package list (a package that a stub apt-get "installs" by making its file), an
empty lock and a two-line ocgate, so nothing here needs a network or changes the machine. The real
lists in a bare Debian: setup/fresh-machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAMP = ".venv/.set-up.run"
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: changes user or mounts")

# Prints what it was called with, as JSON.
OCGATE = """
import json, os, sys
def main():
    print(json.dumps({"arguments": sys.argv[1:], "name": os.path.basename(sys.argv[0]),
                      "cwd": os.getcwd(), "environment": dict(os.environ)}))
    return 7 if "fail" in sys.argv else 0
"""

APT_GET = """#!/bin/bash
echo "$*" >>"$CALLS"
echo "stub apt-get says: $*"
case " $* " in
*" install "*)
    [[ -z $APT_SLEEP ]] || sleep "$APT_SLEEP"
    [[ -z $APT_FAILS ]] || exit 100
    touch "$PROOF" ;;
esac
"""


@dataclass
class Checkout:
    """A copy of the launcher with needs of its own, under a path with a space in it."""

    path: Path
    stubs: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def proof(self) -> Path:
        return self.path.parent / "proof"

    @property
    def calls(self) -> str:
        log = self.path.parent / "calls"
        return log.read_text() if log.exists() else ""

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a start: stubs first on PATH."""
        return {
            "PATH": f"{self.stubs}:{os.environ['PATH']}",
            "PROOF": str(self.proof),
            "CALLS": str(self.path.parent / "calls"),
            **self.settings,
        }

    def start(self, *words: str, launcher: Path | None = None, cwd: str = "/") -> Done:
        """Runs the launcher to its end."""
        command = [str(launcher or self.path / "ocgate"), *words]
        return finished(self.popen(*command, cwd=cwd))

    def popen(self, *command: str, cwd: str = "/") -> subprocess.Popen[str]:
        """Starts a command in a process group of its own, as a terminal does; and with SIGINT as a
        terminal leaves it: who runs the tests in the background of a script has it ignored."""
        return subprocess.Popen(
            ("/usr/bin/env", "--default-signal=INT", *command),
            cwd=cwd, env=self.environment, text=True, process_group=0, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a start ended."""

    status: int
    out: str
    err: str


def finished(process: subprocess.Popen[str]) -> Done:
    out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)


@pytest.fixture(autouse=True)
def one_at_a_time() -> Iterator[None]:
    """The set-up under test puts a policy-rc.d of its own into this machine's /usr/sbin for a
    moment; a test in another process, of this run or of somebody else's, must not meet it there.
    The directory is its own lock, so that no file is left."""
    lock = os.open("/usr/sbin", os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@pytest.fixture
def bare() -> Iterator[Checkout]:
    """A checkout where nothing was set up, and a package is missing."""
    # Not tmp_path: its mode 700 parent would lock out the user that one test changes to.
    directory = Path(tempfile.mkdtemp(prefix="ocgate launcher "))
    directory.chmod(0o755)
    path, stubs = directory / "a checkout", directory / "stubs"
    (path / "src/ocgate").mkdir(parents=True)
    (path / "setup").mkdir()
    stubs.mkdir()
    shutil.copy(ROOT / "ocgate", path)
    shutil.copy(ROOT / "setup/machine.bash", path / "setup")
    (path / "requirements.lock").touch()
    (path / "src/ocgate/__init__.py").touch()
    (path / "src/ocgate/__main__.py").write_text(OCGATE)
    checkout = Checkout(path, stubs)
    # A list can't hold a path with spaces, and needs none; the glob is part of the test.
    pattern = str(checkout.proof).replace(" ", "?")
    (path / "setup/packages-run.txt").write_text(f"# needs\n\nmade-up  {pattern}*  a reason\n")
    (stubs / "apt-get").write_text(APT_GET)
    (stubs / "dpkg").write_text("#!/bin/sh\n")  # --audit finds nothing
    (stubs / "dpkg-query").write_text("#!/bin/sh\nexit 1\n")  # no such package
    for stub in stubs.iterdir():
        stub.chmod(0o755)
    yield checkout
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    """A .venv as the set-up makes it, made once: it takes seconds."""
    maker = bare.__wrapped__()  # type: ignore[attr-defined]
    checkout = next(maker)
    checkout.proof.touch()
    done = checkout.start()
    assert done.status == 0, done.err
    yield checkout.path / ".venv"
    next(maker, None)


@pytest.fixture
def lacking(bare: Checkout, template: Path) -> Checkout:
    """A checkout that is set up but for the package, which spares the seconds that .venv takes."""
    shutil.copytree(template, bare.path / ".venv", symlinks=True)
    return bare


@pytest.fixture
def ready(lacking: Checkout) -> Checkout:
    """A checkout that is set up."""
    lacking.proof.touch()
    return lacking


def told(done: Done) -> dict[str, object]:
    assert done.status == 0, done.err
    told = json.loads(done.out)
    assert isinstance(told, dict)
    return told


def test_a_start_passes_arguments_cwd_and_status_on(ready: Checkout, tmp_path: Path) -> None:
    words = ["plan", "two words", "", "*", "$(id)", "--json"]
    seen = told(ready.start(*words, cwd=str(tmp_path)))
    assert seen["arguments"] == words
    assert seen["cwd"] == str(tmp_path)
    assert seen["name"] == "ocgate"
    assert ready.start("fail").status == 7


def test_a_start_adds_nothing_to_the_environment(ready: Checkout) -> None:
    """An OCGATE_ variable that nobody knows is an error of the configuration."""
    shells_own = {"PWD", "SHLVL", "_", "OLDPWD", "LC_CTYPE"}
    environment = told(ready.start())["environment"]
    assert isinstance(environment, dict)
    assert set(environment) - shells_own == set(ready.environment)


def test_a_start_through_a_symlink_finds_its_checkout(ready: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "ocgate"
    link.symlink_to(ready.path / "ocgate")
    told(ready.start(launcher=link, cwd=str(tmp_path)))
    entry = tmp_path / "entry"
    entry.symlink_to(ready.path / ".venv/bin/ocgate")
    told(ready.start(launcher=entry))


def test_a_start_imports_nothing_from_where_it_is_called(ready: Checkout, tmp_path: Path) -> None:
    """The caller's directory may be anybody's, and the caller is often root."""
    for name in ("json.py", "os.py", "ocgate.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the working directory')")
    ready.settings["PYTHONPATH"] = str(tmp_path)
    told(ready.start(cwd=str(tmp_path)))


def test_a_start_costs_less_than_50_ms(ready: Checkout) -> None:
    """Against the same Python without the launcher.

    Processor time of the best of ten, so that a busy machine makes no difference: the launcher
    waits for nothing, and idle its wall-clock time is the same.
    """
    python = str(ready.path / ".venv/bin/python")
    direct = processor_time(ready, python, "-I", str(ready.path / ".venv/bin/ocgate"))
    assert processor_time(ready, str(ready.path / "ocgate")) - direct < 0.050


def processor_time(checkout: Checkout, *command: str) -> float:
    """Seconds that a command and its children take from the processors, at best."""

    def once() -> float:
        before = os.times()
        assert finished(checkout.popen(*command)).status == 0
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])

    return min(once() for _ in range(10))


@needs_root
def test_a_start_writes_nothing_once_set_up(ready: Checkout) -> None:
    command = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$1/ocgate"'
    done = finished(ready.popen("unshare", "--mount", "sh", "-c", command, "sh", str(ready.path)))
    told(done)


@needs_root
def test_the_first_start_installs_and_the_second_does_not(bare: Checkout) -> None:
    first = bare.start("run")
    assert told(first)["arguments"] == ["run"]
    steps = [line for line in first.err.splitlines() if "[" in line]
    assert [step[8:13] for step in steps] == ["[1/3]", "[1/3]", "[2/3]", "[3/3]"]
    assert "installing Debian packages: made-up … " in first.err
    assert "stub apt-get says" not in first.err, "apt's words belong into the log"
    assert "install -y --no-install-recommends" in bare.calls
    calls = bare.calls
    second = bare.start("run")
    assert (second.err, bare.calls) == ("", calls)


@needs_root
def test_a_failed_installation_shows_why_and_the_next_start_repairs_it(lacking: Checkout) -> None:
    lacking.settings["APT_FAILS"] = "yes"
    failed = lacking.start()
    assert failed.status == 1
    assert "FAILED" in failed.err
    assert "    stub apt-get says:" in failed.err
    del lacking.settings["APT_FAILS"]
    told(lacking.start())


@needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_killed_set_up_is_finished_by_the_next_start(
    lacking: Checkout, number: signal.Signals
) -> None:
    lacking.settings["APT_SLEEP"] = "30"
    process = lacking.popen(str(lacking.path / "ocgate"))
    wait_for(lambda: " install " in lacking.calls)
    os.killpg(process.pid, number)
    killed = finished(process)
    assert killed.status != 0
    assert number == signal.SIGKILL or "the next start finishes it" in killed.err
    del lacking.settings["APT_SLEEP"]
    told(lacking.start())


@needs_root
def test_two_starts_at_once_set_up_once(lacking: Checkout) -> None:
    lacking.settings["APT_SLEEP"] = "1"
    processes = [lacking.popen(str(lacking.path / "ocgate")) for _ in range(2)]
    ends = [finished(process) for process in processes]
    for end in ends:
        told(end)
    assert lacking.calls.count(" install ") == 1
    assert sum("another set-up is running" in end.err for end in ends) == 1


def test_half_a_venv_is_made_again(ready: Checkout) -> None:
    (ready.path / STAMP).unlink()
    shutil.rmtree(next((ready.path / ".venv/lib").iterdir()))
    done = ready.start()
    told(done)
    assert "making .venv" in done.err


def test_a_venv_of_another_python_is_made_again(ready: Checkout) -> None:
    stamp = ready.path / STAMP
    stamp.write_text(stamp.read_text().replace("python3", "python2"))
    done = ready.start()
    told(done)
    assert "making .venv" in done.err


def test_a_new_lock_updates_the_venv_in_place(ready: Checkout) -> None:
    """A serving ocgate runs from it."""
    kept = ready.path / ".venv/kept"
    kept.touch()
    (ready.path / "requirements.lock").write_text("# another one\n")
    done = ready.start()
    told(done)
    assert kept.exists()
    assert ready.start().err == ""


@needs_root
def test_without_root_it_says_what_to_run(bare: Checkout) -> None:
    for path in (bare.path, *bare.path.rglob("*")):
        os.chown(path, 65534, 65534)
    words = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    done = finished(bare.popen(*words, str(bare.path / "ocgate"), "run"))
    assert done.status == 1
    assert "missing: made-up" in done.err
    assert "sudo apt-get install made-up" in done.err
    assert bare.calls == ""


@needs_root
def test_without_apt_it_says_what_is_needed(bare: Checkout) -> None:
    (bare.stubs / "apt-get").unlink()
    for name in ("bash", "readlink", "sha256sum", "flock", "mkdir", "stat", "cat", "grep"):
        found = shutil.which(name)
        assert found
        (bare.stubs / name).symlink_to(found)
    bare.settings["PATH"] = str(bare.stubs)
    done = bare.start("run")
    assert done.status == 1
    assert "has no apt-get" in done.err
    assert done.err.rstrip().endswith("made-up")


# --- ocserv's own service -------------------------------------------------------------------------

# Only these two functions, on a policy-rc.d of our own. The mark that makes allow_services disable
# ocserv's service is taken away first: this machine's service is not ours to disable.
SERVICES = """
set -euo pipefail
root=$1 missing=(nftables ocserv)
. "$root/setup/machine.bash"
POLICY=$2
forbid_services
rm "$root/.setup/ocserv-by-us"
for service in ocserv other; do
    status=0
    [[ ! -x $POLICY ]] || "$POLICY" "$service" start || status=$?
    echo "$service $status"
done
[[ ${3:-} != killed ]] || exit 0
allow_services
"""


def services(checkout: Checkout, policy: Path, *words: str) -> list[str]:
    (checkout.path / ".setup").mkdir(exist_ok=True)
    done = finished(
        checkout.popen("bash", "-c", SERVICES, "bash", str(checkout.path), str(policy), *words)
    )
    assert done.status == 0, done.err
    return done.out.splitlines()


def test_only_ocserv_is_kept_from_starting(bare: Checkout, tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    assert services(bare, policy) == ["ocserv 101", "other 0"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", ["ends well", "killed"])
def test_a_policy_that_is_there_is_asked_and_put_back(
    bare: Checkout, tmp_path: Path, before: str
) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 104\n")
    policy.chmod(0o755)
    if before == "killed":
        services(bare, policy, "killed")
    assert services(bare, policy) == ["ocserv 101", "other 104"]
    assert policy.read_text() == "#!/bin/sh\nexit 104\n"
    assert list(tmp_path.iterdir()) == [policy]


def wait_for(condition: object, seconds: float = 20.0) -> None:
    """Polls until `condition()` holds: a log that another process writes has no event."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

"""Our parser and the real `ocserv -t` read the same file the same way.

The oracle: while it parses, ocserv names on stderr every key it does not know, every section it
skips and every virtual host it adds, and it quotes the value of a bad `rekey-method`. Files of
made-up keys therefore make it print what it read, line by line, up to the line at which it stops.

The installed ocserv is asked; OCGATE_OTHER_OCSERV names a second one by its command
(`chroot /some/root ocserv`): the file is passed on standard input, so that any root will do.
"""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ocgate.errors import MissingRequirement, ServerRefused
from ocgate.ocserv import dryrun, ini_parser
from ocgate.ocserv.certificate import create
from ocgate.ocserv.releases import LONG_LINES_REFUSED
from ocgate.ocserv.render import Effective, EffectiveChoices, render

pytestmark = pytest.mark.kernel

# Generous: one run takes 10 ms here, but CI shares its cores.
TIME_LIMIT_SECONDS = 20

COMMANDS = [
    command
    for command in ("ocserv", os.environ.get("OCGATE_OTHER_OCSERV", ""))
    if command and shutil.which(shlex.split(command)[0])
]

GOOD_METHODS = ("ssl", "new-tunnel")


def ocserv_trace(command: str, data: bytes) -> list[str]:
    """What ocserv says about keys, sections and values, until it stops reading."""
    done = subprocess.run(
        [*shlex.split(command), "-t", "-c", "/dev/stdin"],
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=TIME_LIMIT_SECONDS,
        check=False,
    )
    text = done.stdout.decode("utf-8", "surrogateescape")
    wanted = (
        "warning: skipping unknown ",
        "note: adding virtual host",
        "error: unknown rekey method",
        "error: config file error",
    )
    return [line for line in text.split("\n") if line.startswith(wanted)]


def our_trace(document: ini_parser.Document) -> list[str]:
    """The same words, from our reading."""
    return list(_events(document))


def _events(document: ini_parser.Document) -> Iterator[str]:
    vhosts: set[str] = set()
    for found in sorted([*document.entries, *document.flaws], key=lambda row: row.line):
        if isinstance(found, ini_parser.Flaw) and found.kind.fatal:
            yield f"error: config file error in line {found.line}"
            return
        if (
            isinstance(found, ini_parser.Flaw)
            and found.kind is not ini_parser.FlawKind.IGNORED_VALUE
        ):
            continue
        vhost = ini_parser.vhost_of(found.section)
        if vhost is None:
            yield f"warning: skipping unknown section '{found.section}'"
            continue
        if vhost and vhost not in vhosts:
            vhosts.add(vhost)
            yield f"note: adding virtual host: {vhost}"
        if isinstance(found, ini_parser.Flaw):
            continue
        if found.key != "rekey-method":
            yield f"warning: skipping unknown option '{found.key}'"
        elif found.value not in GOOD_METHODS:
            yield f"error: unknown rekey method '{found.value}'"
            yield f"error: config file error in line {found.line}"
            return


@functools.cache
def refuses_long_lines(command: str) -> bool:
    return LONG_LINES_REFUSED.holds(dryrun.version(shlex.split(command)))


def assert_agree(command: str, data: bytes) -> None:
    document = ini_parser.parse(data, "f")
    theirs, ours = ocserv_trace(command, data), our_trace(document)
    if any(flaw.kind is ini_parser.FlawKind.TOO_LONG for flaw in document.flaws):
        if refuses_long_lines(command):  # as our checks do, whatever stands in its pieces
            assert theirs[-1].startswith("error: config file error in line ")
            return
        # ocserv counts the pieces of such a line, we count lines as an editor does.
        theirs, ours = ([line.rstrip("0123456789") for line in side] for side in (theirs, ours))
    assert theirs == ours


CORPUS = {
    "plain": b"one = 1\ntwo: 2\n",
    "quotes": b'rekey-method = "a b"\n',
    "comment in quotes": b'rekey-method = "a # b"\n',
    "semicolon is literal": b'rekey-method = "a;b" ; c\n',
    "hash without space": b"rekey-method = a#b\n",
    "quote inside": b'rekey-method = "a"b"\n',
    "half quotes": b'rekey-method = "a\n',
    "apostrophes stay": b"rekey-method = 'a b'\n",
    "space inside quotes": b'rekey-method = " a "\n',
    "only quotes": b'rekey-method = ""\nend = 1\n',
    "only quotes, no space": b'rekey-method=""\nend = 1\n',
    "nothing": b"rekey-method =\n",
    "only a comment": b"rekey-method = # b\nend = 1\n",
    "hash right after": b"rekey-method =# b\n",
    "several separators": b"rekey-method = a = b : c\n",
    "case": b"Rekey-Method = a\n",
    "continued": b"rekey-method = ssl\n  zz\n",
    "continued key": b"one = 1\n  two = 2\n",
    "indented after comment": b"# c\n  rekey-method = a\n",
    "continued comment": b"one = 1\n  # two\n",
    "section ends continuation": b"one = 1\n[vhost:a]\n  two = 2\n",
    "indented section": b"one = 1\n  [vhost:a]\ntwo = 2\n",
    "crlf": b"one = 1\r\nrekey-method = a\r\n",
    "lone cr": b"one\r= 1\rtwo=2\n",
    "bom": b"\xef\xbb\xbfone = 1\n",
    "utf-16 bom": b"\xff\xfeone = 1\n",
    "bom before section": b"\xef\xbb\xbf[vhost:a]\none = 1\n",
    "no final newline": b"rekey-method = a",
    "nul in key": b"a\0b = 1\ntwo = 2\n",
    "nul in value": b"one = 1\0\n  two = 2\n",
    "vertical tab": b"\x0bone = 1\n",
    "key with comment": b"one # = 1\ntwo = 2\n",
    "key with semicolon": b"one ; = 1\n",
    "no separator": b"one = 1\ntwo\nthree = 3\n",
    "empty key": b"= 1\n",
    "non-ascii": "ключ = 1\n".encode(),
    "unknown section": b"[foo]\none = 1\ntwo = 2\n[]\nthree = 3\n",
    "vhosts": b"[vhost:a]\none = 1\n[vhost:b]\ntwo = 2\n[vhost:a]\nthree = 3\n",
    "vhost case": b"[vhost:A]\none = 1\n[vhost:a]\ntwo = 2\n[VHOST:a]\nthree = 3\n",
    "vhost spaces": b"[vhost: a ]\none = 1\n[ vhost:a]\ntwo = 2\n",
    "vhost empty": b"[vhost:]\none = 1\n",
    "vhost empty and unused": b"[vhost:]\n[vhost:a]\none = 1\n",
    "vhost without lines": b"[vhost:a]\n",
    "vhost unclosed": b"[vhost:a\none = 1\n",
    "vhost comment": b"[vhost:a # b]\none = 1\n",
    "text after section": b"[vhost:a] rest\none = 1\n",
    "long section": b"[vhost:" + b"abcdefghij" * 6 + b"]\none = 1\n",
    "long key continued": b"abcdefghij" * 6 + b" = 1\n more\n",
    **{
        f"line of {size} bytes": b"one = " + b"a" * (size - 9) + b"x=1\nrekey-method = b\n"
        for size in (2045, 2046, 2047, 2048, 2049, 4093, 4094, 4095)
    },
    "long comment": b"# " + b"a" * 2100 + b"\nthree = 3\n",
    "long comment with a key in its tail": b"#" + b"a" * 2060 + b" = 1\nrekey-method = b\n",
}


@pytest.mark.releases
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", CORPUS)
def test_corpus(command: str, name: str) -> None:
    """Every hand-made oddity reads as in ocserv."""
    assert_agree(command, CORPUS[name])


# Fragments rather than random text: each of them is where readers differ. ` #` in an indented line
# is left out: 1.1.6 keeps it and 1.3.0 cuts it, and we refuse indented lines anyway.
FRAGMENTS = st.sampled_from(
    [
        *("a", "bc", "rekey-method", "ssl", "vhost:", "[vhost:", "[]", "a = 1", " = ", "é"),
        *"=: \t\"'#;[]\r\x0b\x0c\\/-",
    ]
)
WHOLE = st.sampled_from(
    ["rekey-method = ssl", "one = 1", "[vhost:a]", "[vhost:b]", "[x]", "[]", "", "# c"]
)
LINES = st.one_of(WHOLE, st.lists(FRAGMENTS, max_size=8).map("".join))


@st.composite
def files(draw: st.DrawFn) -> str:
    """A few lines, with or without CR, BOM and final newline."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = end.join(draw(st.lists(LINES, min_size=1, max_size=8)))
    return draw(st.sampled_from(["", "\ufeff"])) + text + draw(st.sampled_from(["", end]))


@pytest.mark.parametrize("command", COMMANDS)
@given(text=files())
@example(text='[vhost:a]\n = "')
@settings(
    max_examples=int(os.environ.get("OCGATE_FUZZ_EXAMPLES", "300")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
def test_fuzz(command: str, text: str) -> None:
    """Any mixture of the fragments reads as in ocserv."""
    data = text.encode("utf-8")
    document = ini_parser.parse(data, "f")
    continued = [flaw for flaw in document.flaws if flaw.kind is ini_parser.FlawKind.CONTINUATION]
    if any("#" in flaw.text for flaw in continued):
        return  # versions differ, see above
    names = "".join(section.name for section in document.sections)
    if not (names.isascii() and names.isprintable()):
        return  # ocserv maps such names by IDNA
    assert_agree(command, data)


HEAD = """\
auth = "plain[passwd=ocpasswd]"
tcp-port = 443
server-cert = cert.pem
server-key = key.pem
device = vpns
"""
VHOST = """\
[vhost:b.example]
auth = "plain[passwd=ocpasswd]"
server-cert = cert.pem
server-key = key.pem
ipv4-network = 10.20.0.0/24
"""
CHOICES = EffectiveChoices(
    connect_hook="/run/ocgate/hooks/connect",
    disconnect_hook="/run/ocgate/hooks/disconnect",
    socket_file="/run/ocgate/ocserv.sock",
    pid_file="/run/ocgate/ocserv.pid",
    occtl_socket_file="/run/ocgate/occtl.sock",
    directory="/etc/ocserv",
    ipv4_network=IPv4Network("10.10.10.0/24"),
    release=dryrun.version(),
    ipv6_network=IPv6Network("fda9:4efe:7e3b:3ea::/64"),
)


@pytest.fixture(scope="session")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the key and certificate that HEAD names, relative to it."""
    directory = tmp_path_factory.mktemp("identity")
    made = create(["b.example"])
    (directory / "cert.pem").write_bytes(made.certificate)
    (directory / "key.pem").write_bytes(made.key)
    return directory


def effective(text: str, directory: Path) -> tuple[Path, Effective]:
    made = render(ini_parser.parse(text.encode(), "/etc/ocserv/ocserv.conf"), CHOICES)
    path = directory / "effective.conf"
    path.write_bytes(made.data)
    return path, made


@pytest.mark.releases
@pytest.mark.parametrize("text", [HEAD, HEAD + VHOST, HEAD + "route = 10.0.0.0/8\n" + VHOST])
def test_ocserv_takes_the_effective_file(text: str, identity: Path, tmp_path: Path) -> None:
    """What the operator left out is filled in; relative paths start at `base`."""
    assert dryrun.dry_run(*effective(text, tmp_path), base=identity) == ()


@pytest.mark.releases
def test_warnings_are_handed_on(identity: Path, tmp_path: Path) -> None:
    """A key that ocserv does not know is worth a word, not a refusal."""
    said = dryrun.dry_run(*effective(HEAD + "devise = vpns\n", tmp_path), base=identity)
    assert said == ("skipping unknown option 'devise'",)


@pytest.mark.releases
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "rekey-method = x\n", "unknown rekey method 'x'; error: /etc/ocserv/ocserv.conf:6"),
        (HEAD + VHOST + "oops\n", "/etc/ocserv/ocserv.conf:11"),
        (HEAD.replace("cert.pem", "nowhere.pem"), "nowhere.pem"),
        (HEAD + "run-as-user = nobody-like-that\n", "unknown user: nobody-like-that"),
    ],
)
def test_refusal_shows_words_and_line(
    text: str, words: str, identity: Path, tmp_path: Path
) -> None:
    """ocserv's words, with the operator's file and line instead of the effective one's."""
    with pytest.raises(ServerRefused) as refused:
        dryrun.dry_run(*effective(text, tmp_path), base=identity)
    assert words in refused.value.message
    assert "Setting" not in refused.value.message


def test_ocserv_sees_nothing_of_our_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets of the control plane don't reach it."""
    monkeypatch.setenv("OCGATE_PASSWORD", "secret")
    path, made = effective(HEAD, tmp_path)
    with pytest.raises(ServerRefused, match="exit 1") as refused:
        dryrun.dry_run(path, made, base=tmp_path, command=["sh", "-c", "env; exit 1"])
    assert "secret" not in refused.value.message


@pytest.mark.releases
def test_version() -> None:
    """The installed one, as three numbers."""
    assert dryrun.version() >= (1, 1, 0)


def test_no_ocserv(tmp_path: Path) -> None:
    """A machine without ocserv is told what to install."""
    with pytest.raises(MissingRequirement, match="/nowhere/ocserv"):
        dryrun.version(["/nowhere/ocserv"])

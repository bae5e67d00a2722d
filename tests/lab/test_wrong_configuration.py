"""Every wrong configuration is refused by the real command line, with words that say what to do,
and without having changed anything: kernel, config dir, run dir.

gw alone, in its own namespace         see lab.topology
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab import gateway
from lab.certificate import write_certificate
from lab.gateway import Gateway, command
from lab.topology import PORT, Lab, Options
from ocgate.netlab.kernel_state import observe
from ocgate.netlab.listening import listens
from ocgate.netlab.program import Mount, Program
from support.serving import PASSWORD, LabFactory, operators

pytestmark = pytest.mark.lab

# Both read everything, ask ocserv, and end: about half a second.
END_SECONDS = 20.0

USAGE, WRONG = 2, 1

Spoil = Callable[[Path], None]


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    """Name -> (mode, bytes) of every file below `directory`."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(p.relative_to(directory)): (p.stat().st_mode, p.read_bytes()) for p in files}


def set_line(key: str, value: str | None) -> Spoil:
    """Replace (None: remove) `key` of ocserv.conf."""

    def spoil(etc: Path) -> None:
        conf = etc / "ocserv.conf"
        text = conf.read_text()
        line = "" if value is None else f"{key} = {value}\n"
        changed, times = re.subn(rf"(?m)^{key} = .*\n", lambda _: line, text)
        assert times == 1
        conf.write_text(changed)

    return spoil


def append(*lines: str) -> Spoil:
    """Lines at the end of ocserv.conf; {etc} is the config dir."""

    def spoil(etc: Path) -> None:
        with (etc / "ocserv.conf").open("a") as file:
            file.writelines(f"{line.format(etc=etc)}\n" for line in lines)

    return spoil


def in_file(name: str, text: str) -> Spoil:
    def spoil(etc: Path) -> None:
        (etc / name).parent.mkdir(exist_ok=True)
        (etc / name).write_text(text)

    return spoil


def mismatched_key(etc: Path) -> None:
    write_certificate(etc / "other-cert.pem", etc / "server-key.pem", [])


def both(*spoils: Spoil) -> Spoil:
    def spoil(etc: Path) -> None:
        for one in spoils:
            one(etc)

    return spoil


@dataclass(frozen=True)
class Wrong:
    """One wrong configuration.

    spoil:   what is done to the right config dir; environ: what is set on top.
    says:    regular expressions that each must match one line of the refusal; CONF, TOML and ETC
             stand for the paths.
    """

    says: tuple[str, ...]
    environ: Mapping[str, str] = field(default_factory=dict)
    spoil: Spoil = lambda etc: None


def subnet(value: str, says: str) -> Wrong:
    """VPN_SUBNET against ocserv.conf's 10.10.10.0/24: both places must be named on its line."""
    line = f"^ocgate: environment: VPN_SUBNET: got '{re.escape(value)}'; expected .*"
    return Wrong((f"{line}CONF:\\d+", line + re.escape(says)), {"VPN_SUBNET": value})


VHOST = (
    "[vhost:b.example]",
    'auth = "plain[passwd={etc}/ocpasswd]"',
    "server-cert = {etc}/server-cert.pem",
    "server-key = {etc}/server-key.pem",
)
IPV6 = append("ipv6-network = fda9:4efe:7e3b:3ea::/64")
PER_USER = append("config-per-user = {etc}/users")

WRONG_ONES: Mapping[str, Wrong] = {
    "subnet-other": subnet("10.20.30.0/24", "another network"),
    "subnet-narrower": subnet("10.10.10.0/25", "narrower"),
    "subnet-wider": subnet("10.10.0.0/16", "wider"),
    "subnet-host-bits": subnet("10.10.10.5/24", "without host bits"),
    "subnet-no-mask": subnet("10.10.10.0", "Add the mask: write 10.10.10.0/24"),
    "subnet-garbage": subnet("banana/24", "Write a network such as 10.10.10.0/24"),
    "subnet-in-toml": Wrong(
        ("^ocgate: TOML:2: VPN_SUBNET: got '10.20.30.0/24'; .*CONF:\\d+.*another network",),
        spoil=in_file("ocgate.toml", '# mine\nvpn_subnet = "10.20.30.0/24"\n'),
    ),
    "toml-host-bits": Wrong(
        ("^ocgate: TOML:1: VPN_SUBNET: got '10.10.10.7/24'; expected .*host bits.*CONF:\\d+ says",),
        spoil=in_file("ocgate.toml", 'vpn_subnet = "10.10.10.7/24"\n'),
    ),
    "toml-not-toml": Wrong(
        ("^ocgate: TOML:2: ",), spoil=in_file("ocgate.toml", "# mine\nmss 1200\n")
    ),
    "toml-unknown": Wrong(
        ("^ocgate: TOML:1: .*vpn_subnt.*VPN_SUBNET|^ocgate: TOML:1: .*(?i:vpn_subnet)",),
        spoil=in_file("ocgate.toml", 'vpn_subnt = "10.10.10.0/24"\n'),
    ),
    "vhost-outside": Wrong(
        ("^ocgate: environment: VPN_SUBNET: got '10.10.10.0/24'; .*10.30.0.0/24 .*CONF:\\d+",),
        {"VPN_SUBNET": "10.10.10.0/24"},
        append(*VHOST, "ipv4-network = 10.30.0.0/24"),
    ),
    "user-outside": Wrong(
        ("^ocgate: environment: VPN_SUBNET: .*10.40.0.0/24 .*ETC/users/alice:1",),
        {"VPN_SUBNET": "10.10.10.0/24"},
        both(PER_USER, in_file("users/alice", "ipv4-network = 10.40.0.0/24\n")),
    ),
    "user-address-outside": Wrong(
        ("^ocgate: ETC/users/alice:1: explicit-ipv4: got '10.50.0.7'; expected .*inside",),
        spoil=both(PER_USER, in_file("users/alice", "explicit-ipv4 = 10.50.0.7\n")),
    ),
    "ipv6-subnet": Wrong(
        ("^ocgate: environment: IPV6_SUBNET: got 'fd00:1:2:3::/64'; .*CONF:\\d+ ipv6-network",),
        {"IPV6_SUBNET": "fd00:1:2:3::/64"},
        IPV6,
    ),
    "ipv6-subnet-narrower": Wrong(
        ("^ocgate: environment: IPV6_SUBNET: .*CONF:\\d+.*narrower",),
        {"IPV6_SUBNET": "fda9:4efe:7e3b:3ea::/80"},
        IPV6,
    ),
    "ipv6-subnet-host-bits": Wrong(
        ("^ocgate: environment: IPV6_SUBNET: got .*host bits.*CONF:\\d+ says",),
        {"IPV6_SUBNET": "fda9:4efe:7e3b:3ea::5/64"},
        IPV6,
    ),
    "vpn-if": Wrong(
        ("^ocgate: environment: VPN_IF: got 'tun\\+'; expected vpns\\+, since CONF:\\d+ says",),
        {"VPN_IF": "tun+"},
    ),
    "vpn-if-garbage": Wrong(
        ("^ocgate: environment: VPN_IF: got .*expected",), {"VPN_IF": "vpns; flush ruleset"}
    ),
    "unknown-vpn": Wrong(
        ("^ocgate: environment: VPN_SUBNETS: .*VPN_SUBNET\\b",), {"VPN_SUBNETS": "10.10.10.0/24"}
    ),
    "unknown-ocgate": Wrong(
        ("^ocgate: environment: OCGATE_LOGFORMAT: .*OCGATE_LOG_FORMAT",),
        {"OCGATE_LOGFORMAT": "json"},
    ),
    "gateway-of-the-other-family": Wrong(
        ("^ocgate: environment: VPN_GATEWAY: got 'fd00:28::2'; expected .*VPN_GATEWAY6",),
        {"VPN_GATEWAY": "fd00:28::2"},
    ),
    "gateway6-without-forwarding": Wrong(
        ("^ocgate: environment: VPN_GATEWAY6: got 'direct'; expected .*IPV6_FORWARD=0",),
        {"VPN_GATEWAY6": "direct", "IPV6_FORWARD": "0"},
    ),
    "gateways": Wrong(
        ("^ocgate: environment: VPN_GATEWAYS: ", "^ocgate: environment: VPN_USER_GATEWAY: "),
        {"VPN_GATEWAYS": "nl=172.28.0.2", "VPN_USER_GATEWAY": "alice=nl"},
    ),
    "bypass": Wrong(
        ("^ocgate: environment: VPN_USER_BYPASS: got 'alice=ru'; expected",),
        {"VPN_USER_BYPASS": "alice=ru"},
    ),
    "mss-small": Wrong(
        ("^ocgate: environment: MSS: got '100'; expected .*536.*65535.*bytes",), {"MSS": "100"}
    ),
    "mss-word": Wrong(("^ocgate: environment: MSS: got 'auto'; expected",), {"MSS": "auto"}),
    "wan-if-absent": Wrong(
        ("^ocgate: environment: WAN_IF: got 'eth7'; expected .*eth0",), {"WAN_IF": "eth7"}
    ),
    "wan-if-garbage": Wrong(
        ("^ocgate: environment: WAN_IF: got .*expected",), {"WAN_IF": 'eth0" accept'}
    ),
    "ipv6-nat": Wrong(
        ("^ocgate: environment: IPV6_NAT: got 'perhaps'; expected",), {"IPV6_NAT": "perhaps"}
    ),
    "docker-network": Wrong(
        ("^ocgate: CONF:\\d+: ipv4-network: got '172.28.0.0/24'; .*172.28.0.0/24 is on eth0",),
        spoil=set_line("ipv4-network", "172.28.0.0/24"),
    ),
    "docker-network-inside": Wrong(
        ("^ocgate: environment: VPN_SUBNET: got '172.28.0.0/16'; .*172.28.0.0/24 is on eth0",),
        {"VPN_SUBNET": "172.28.0.0/16"},
        both(set_line("ipv4-network", None), set_line("ipv4-netmask", None)),
    ),
    "docker-network6": Wrong(
        ("^ocgate: CONF:\\d+: ipv6-network: got '2001:db8:28::/64'; .*is on eth0",),
        {"IPV6_NAT": "1"},
        append("ipv6-network = 2001:db8:28::/64"),
    ),
    "netmask": Wrong(
        ("^ocgate: CONF:\\d+: .*255.0.255.0",), spoil=set_line("ipv4-netmask", "255.0.255.0")
    ),
    "no-netmask": Wrong(("^ocgate: CONF:\\d+: ",), spoil=set_line("ipv4-netmask", None)),
    "conf-host-bits": Wrong(
        ("^ocgate: CONF:\\d+: ipv4-network: got .*10.10.10.9",),
        spoil=set_line("ipv4-network", "10.10.10.9"),
    ),
    "conf-garbage": Wrong(
        ("^ocgate: CONF:\\d+: .*got 'this is no line'; expected",),
        spoil=append("this is no line"),
    ),
    "conf-indented": Wrong(
        ("^ocgate: CONF:\\d+: .*got .*; expected .*line's start",),
        spoil=append("dns = 9.9.9.9", "  split-dns = corp.example"),
    ),
    "conf-port": Wrong(
        ("^ocgate: CONF:\\d+: tcp-port: got '70000'; expected .*65535",),
        spoil=set_line("tcp-port", "70000"),
    ),
    "conf-route": Wrong(
        ("^ocgate: CONF:\\d+: route: got 'banana'; expected",), spoil=append("route = banana")
    ),
    "no-certificate": Wrong(
        ("^ocgate: CONF:\\d+: server-cert: got '.*gone.pem'; expected .*No such file",),
        spoil=set_line("server-cert", "/gone.pem"),
    ),
    "no-key": Wrong(
        ("^ocgate: CONF:\\d+: server-key: got '.*gone.pem'; expected .*No such file",),
        spoil=set_line("server-key", "/gone.pem"),
    ),
    "key-mismatch": Wrong(
        ("^ocgate: CONF:\\d+: server-key: got .*expected the key of the certificate .*CONF:\\d+",),
        spoil=mismatched_key,
    ),
    "empty-hash": Wrong(
        ("^ocgate: ETC/ocpasswd:1: user: got 'anybody'; expected a password hash",),
        spoil=in_file("ocpasswd", "anybody:*:\n"),
    ),
    "restrict-routes": Wrong(
        ("^ocgate: CONF:\\d+: restrict-user-to-routes: got 'true'; expected",),
        spoil=append("restrict-user-to-routes = true"),
    ),
    "iroute": Wrong(
        ("^ocgate: ETC/users/alice:1: iroute: got .*; expected",),
        spoil=both(PER_USER, in_file("users/alice", "iroute = 192.168.5.0/24\n")),
    ),
    "no-passwd": Wrong(
        ("^ocgate: CONF:\\d+: auth: got '.*gone'; expected .*No such file",),
        spoil=set_line("auth", '"plain[passwd=/gone]"'),
    ),
    "script-missing": Wrong(
        ("^ocgate: CONF:\\d+: connect-script: got '/gone.sh'; expected .*No such file",),
        spoil=append("connect-script = /gone.sh"),
    ),
    "many-settings": Wrong(
        (
            "^ocgate: environment: MSS: got '1'; expected",
            "^ocgate: environment: VPN_GATEWAY: ",
            "^ocgate: environment: VPN_SUBNETT: .*VPN_SUBNET\\b",
            "^ocgate: TOML:1: WAN_IF: got .*; expected",
        ),
        {"MSS": "1", "VPN_GATEWAY": "10.0.0.1/24", "VPN_SUBNETT": "x"},
        in_file("ocgate.toml", 'wan_if = "a name that is too long"\n'),
    ),
    "many-in-conf": Wrong(
        (
            "^ocgate: CONF:\\d+: tcp-port: ",
            "^ocgate: CONF:\\d+: server-key: ",
            "^ocgate: CONF:\\d+: restrict-user-to-routes: ",
            "^ocgate: ETC/ocpasswd:1: user: ",
            "^ocgate: environment: VPN_SUBNET: .*CONF:\\d+",
        ),
        {"VPN_SUBNET": "10.20.30.0/24"},
        both(
            set_line("tcp-port", "0"),
            set_line("server-key", "/gone.pem"),
            append("restrict-user-to-routes = true"),
            in_file("ocpasswd", "anybody::\n"),
        ),
    ),
}

SHAPE = re.compile(r"[^ ]+?(?::\d+)?: [^ :]+: (?:got .*; )?expected .+")


def ended(run: Gateway) -> str:
    """What it said on stderr, when it has ended."""
    run.program.wait(END_SECONDS)
    return run.program.stderr


def nothing_changed(run: Gateway, config_before: Mapping[str, tuple[int, bytes]]) -> None:
    assert run.left_behind() == []
    assert contents(run.config_dir) == config_before
    assert not listens(run.netns, PORT)
    assert not run.netns.pids()
    for name, (_mode, data) in contents(run.run_dir).items():
        assert PASSWORD.encode() not in data, f"a secret in {name}"
    for sign_of_life in ("control.pid", "control.sock", "ocserv.pid", "applied.json"):
        assert not (run.run_dir / sign_of_life).exists()


@pytest.mark.parametrize("wrong", WRONG_ONES.values(), ids=WRONG_ONES.keys())
def test_is_refused(lab: LabFactory, wrong: Wrong) -> None:
    """`run` and `check` refuse with exit code 2 and the same words, and nothing has changed."""
    built = lab(Options(clients=0))
    etc = operators(built)
    wrong.spoil(etc)
    before = contents(etc)
    paths = {"CONF": etc / "ocserv.conf", "TOML": etc / "ocgate.toml", "ETC": etc}
    run = gateway.start(built, {**wrong.environ, "OCGATE_PASSWORD": PASSWORD}, etc)
    check = gateway.start(built, wrong.environ, etc, arguments=("check",))
    refusal, checked = ended(run), ended(check)
    assert run.program.returncode() == USAGE, refusal
    for pattern in wrong.says:
        for name, path in paths.items():
            pattern = pattern.replace(name, re.escape(str(path)))
        assert re.search(pattern, refusal, re.MULTILINE), f"{pattern}\nnot in\n{refusal}"
    problems = [line for line in refusal.splitlines() if line.startswith("ocgate: ")]
    for line in problems:
        assert SHAPE.fullmatch(line.removeprefix("ocgate: ")), line
    assert check.program.returncode() == USAGE, checked
    said = {line.removeprefix("error: ") for line in checked.splitlines()}
    assert {line.removeprefix("ocgate: ") for line in problems} <= said
    nothing_changed(run, before)
    nothing_changed(check, before)


# --- what only ocserv itself sees ---------------------------------------------------------------


@pytest.mark.parametrize("arguments", [("run",), ("check",)], ids=["run", "check"])
def test_what_ocserv_refuses_is_told_in_its_words(
    lab: LabFactory, arguments: tuple[str, ...]
) -> None:
    """What passes our checks and not `ocserv -t` ends with ocserv's own words, and nothing has
    changed.
    """
    built = lab(Options(clients=0))
    etc = operators(built)
    set_line("run-as-user", "no-such-user")(etc)
    before = contents(etc)
    run = gateway.start(built, {}, etc, arguments=arguments)
    refusal = ended(run)
    assert run.program.returncode() == USAGE
    words = rf"Loading {etc}/ocserv.conf: ocserv refused it .*no-such-user.*{etc}/ocserv.conf:\d+"
    assert re.search(words, refusal), refusal
    nothing_changed(run, before)


def test_a_broken_file_is_told_by_its_line(lab: LabFactory) -> None:
    """ocserv.conf that ends in the middle of a line is refused at that line."""
    built = lab(Options(clients=0))
    etc = operators(built)
    conf = etc / "ocserv.conf"
    conf.write_bytes(conf.read_bytes() + b"[vhost:b.example\nroute = ")
    number = len(conf.read_bytes().split(b"\n")) - 1
    before = contents(etc)
    run = gateway.start(built, {}, etc)
    refusal = ended(run)
    assert run.program.returncode() == USAGE
    assert f"{conf}:{number}: " in refusal
    nothing_changed(run, before)


# --- what the machine lacks ---------------------------------------------------------------------


def lacks(lab: Lab, *, mounts: tuple[Mount, ...] = (), prefix: tuple[str, ...] = ()) -> Gateway:
    """`ocgate run` on a right configuration, behind `prefix`, until it has ended."""
    etc = operators(lab)
    before = observe(lab.gw.netns)
    config = contents(etc)
    run_dir = lab.path("run")
    program: Program = lab.spawn(
        lab.gw,
        [*prefix, *command("run")],
        environ={"OCGATE_CONFIG_DIR": str(etc), "OCGATE_RUN_DIR": str(run_dir)},
        mounts=mounts,
    )
    run = Gateway(lab, program, etc, run_dir, before)
    ended(run)
    assert program.returncode() == WRONG, program.output
    nothing_changed(run, config)
    return run


def test_read_only_sysctls_name_the_docker_flag(lab: LabFactory) -> None:
    """Where /proc/sys is read-only, as in a container without --privileged, and forwarding is off,
    the refusal is the exact flag.
    """
    sysctls = Path("/proc/sys")
    run = lacks(lab(Options(clients=0)), mounts=(Mount(sysctls, sysctls, read_only=True),))
    assert "docker run --sysctl net.ipv4.ip_forward=1" in run.program.stderr, run.output
    assert "read-only" in run.program.stderr


def test_without_tun_the_device_flag_is_named(lab: LabFactory) -> None:
    """Where /dev/net/tun is missing the refusal is the exact flag."""
    built = lab(Options(clients=0))
    empty = built.path("empty")
    empty.mkdir()
    run = lacks(built, mounts=(Mount(empty, Path("/dev/net")),))
    assert "/dev/net/tun is not there" in run.program.stderr
    assert "docker run --device /dev/net/tun" in run.program.stderr


def test_without_net_admin_the_capability_flag_is_named(lab: LabFactory) -> None:
    """Root without CAP_NET_ADMIN, as in a plain container, is told --cap-add NET_ADMIN."""
    run = lacks(lab(Options(clients=0)), prefix=("setpriv", "--bounding-set=-net_admin", "--"))
    assert "--cap-add NET_ADMIN" in run.program.stderr.replace("=", " "), run.output


def test_not_root_is_told_sudo(lab: LabFactory) -> None:
    """An ordinary user is told to use sudo."""
    prefix = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--")
    run = lacks(lab(Options(clients=0)), prefix=prefix)
    assert "sudo ./ocgate run" in run.program.stderr, run.output


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_a_taken_port_is_told(lab: LabFactory, kind: socket.SocketKind) -> None:
    """Where another program has port 443, `run` says so and ends, instead of ocserv dying for ever.

    gw: another server on 172.28.0.10:443
    """
    built = lab(Options(clients=0))
    with built.gw.netns.entered():
        taken = socket.socket(socket.AF_INET, kind)
    with taken:
        taken.bind((str(built.gw.address), PORT))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        etc = operators(built)
        run = gateway.start(built, {}, etc)
        said = ended(run)
    assert run.program.returncode() == WRONG, run.output
    protocol = "TCP" if kind is socket.SOCK_STREAM else "UDP"
    assert f"{protocol} port 443" in said, said
    assert "Address already in use" in said
    assert run.left_behind() == []


# --- warnings of check --------------------------------------------------------------------------


def warnings_of(
    lab: Lab, lines: tuple[str, ...], environ: Mapping[str, str], dns: str
) -> list[str]:
    """What `check` warns of; the configuration can be used."""
    settings: dict[str, str | None] = {"dns": dns or None}
    run = gateway.start(
        lab, environ, operators(lab, settings=settings, lines=lines), arguments=("check",)
    )
    said = ended(run)
    assert run.program.returncode() == 0, said
    assert "The configuration can be used" in run.program.stdout
    assert run.left_behind() == []
    return [line for line in said.splitlines() if line.startswith("warning: ")]


FULL = ("route = default",)
SAFE = (*FULL, "tunnel-all-dns = true")
SINK = {"IPV6_NAT": "0", "IPV6_SINK": "1"}
WARNED = {
    "no-tunnel-all-dns": (FULL, SINK, "8.8.8.8", "without tunnel-all-dns"),
    "no-dns": (FULL, SINK, "", "pushes no resolver"),
    "resolver-of-this-host": (SAFE, SINK, "172.28.0.10", "172.28.0.10 is this host"),
    "resolver-in-the-subnet": (SAFE, SINK, "10.10.10.1", "in the clients' own subnet"),
    "resolver-next-door": (SAFE, SINK, "172.28.0.53", "in the local network of eth0"),
    "dual-stack": (SAFE, {}, "8.8.8.8", "a client with IPv6 of its own uses that outside"),
}


@pytest.mark.parametrize(("lines", "environ", "dns", "warning"), WARNED.values(), ids=WARNED.keys())
def test_check_warns(
    lab: LabFactory, lines: tuple[str, ...], environ: dict[str, str], dns: str, warning: str
) -> None:
    """What works but leaks by a client's own doing is warned of, with a remedy, and exit code 0."""
    said = warnings_of(lab(Options(clients=0)), lines, environ, dns)
    assert len(said) == 1 and warning in said[0], said


def test_check_is_content_with_a_good_configuration(lab: LabFactory) -> None:
    """Full tunnel, public resolver, tunnel-all-dns, IPv6 sunk: no warning at all."""
    assert warnings_of(lab(Options(clients=0)), SAFE, SINK, "8.8.8.8") == []

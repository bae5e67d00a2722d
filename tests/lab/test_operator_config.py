"""The operator's own /etc/ocserv is used as it is, whatever its form, and ocgate's own first one
works when its words are pasted.

client1 --- inet --- router --- gw (ocgate run on the operator's files)   see lab.topology
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address
from pathlib import Path

import pytest
from cryptography import x509

from lab import gateway, vpnc_script
from lab.certificate import write_certificate
from lab.client import TUN, Client, Refused, connect
from lab.gateway import Gateway
from lab.ocserv import occtl, run_ocserv, write_users
from lab.topology import SERVICE, Host, Lab, Options
from lab.traffic import ask_tcp, ask_udp
from ocgate.netlab.program import BASE_ENVIRON, Mount
from ocgate.netlab.wait import wait_until
from support.serving import PASSWORD, LabFactory, Served, operators, serve, with_services

pytestmark = pytest.mark.lab

INIT_SECONDS = 20.0


def contents(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Name -> (mode, mtime, bytes) of every file below `directory`."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {
        str(p.relative_to(directory)): (p.stat().st_mode, p.stat().st_mtime_ns, p.read_bytes())
        for p in files
    }


def works(served: Served, user: str = "alice") -> None:
    """A client gets in, through our hook, and out to the internet, masqueraded."""
    client = served.connect(user=user, dtls=False)
    assert ask_udp(client.netns, SERVICE).seen_as == served.lab.router.address
    [session] = served.sessions()
    assert (session["user"], session["address4"]) == (user, str(client.address))
    client.disconnect()
    served.wait_no_sessions()


# --- as it is -----------------------------------------------------------------------------------


def test_files_are_never_edited(lab: LabFactory) -> None:
    """Two runs with a client each leave every file as it was, to the byte, mode and time."""
    built = with_services(lab())
    etc = operators(built, settings={"socket-file": None})
    (etc / "notes.txt").write_text("mine\n")
    before = contents(etc)
    for _ in range(2):
        served = Served(built, gateway.run(built, {}, etc))
        works(served)
        served.gateway.stop()
        assert served.gateway.left_behind() == []
        assert contents(etc) == before
        assert PASSWORD not in served.gateway.output


def test_read_only_config_dir(lab: LabFactory) -> None:
    """A config dir that is mounted read-only serves, is re-read, and stops."""
    built = with_services(lab())
    etc = operators(built, settings={"socket-file": None})
    run = gateway.run(built, {}, etc, mounts=[Mount(etc, etc, read_only=True)])
    works(Served(built, run))
    assert run.ask("reload") == b"ok\n"
    run.stop()
    assert run.left_behind() == []


@pytest.mark.parametrize("read_only", [True, False], ids=["ro", "rw"])
def test_single_file_mount(lab: LabFactory, read_only: bool) -> None:
    """ocserv.conf alone is mounted over a file: it counts, not the one below, and stays."""
    built = with_services(lab())
    etc = operators(built, settings={"socket-file": None})
    conf = etc / "ocserv.conf"
    mounted = built.path("mounted.conf")
    mounted.write_bytes(conf.read_bytes())
    conf.write_text("this one is covered\n")
    before, covered = mounted.read_bytes(), contents(etc)
    mounts = [Mount(mounted, conf, read_only=read_only)]
    works(Served(built, gateway.run(built, {}, etc, mounts=mounts)))
    assert mounted.read_bytes() == before
    assert contents(etc) == covered


def crlf(text: bytes) -> bytes:
    return text.replace(b"\n", b"\r\n")


def no_final_newline(text: bytes) -> bytes:
    return text.rstrip(b"\n")


def byte_order_mark(text: bytes) -> bytes:
    return b"\xef\xbb\xbf" + text


def commented(text: bytes) -> bytes:
    quoted = text.replace(b"device = vpns\n", b'device = "vpns" # the prefix\n;old = 1\n')
    return quoted.replace(b"tcp-port = 443\n", b"tcp-port\t=   443  \n").replace(b"dns = ", b"dns:")


FORMS = (crlf, no_final_newline, byte_order_mark, commented)


@pytest.mark.parametrize("form", FORMS, ids=[form.__name__ for form in FORMS])
def test_forms_of_the_file(lab: LabFactory, form: Callable[[bytes], bytes]) -> None:
    """CRLF, a missing final newline, a BOM, quotes and comments: all that ocserv takes serves, with
    our hooks in force.
    """
    built = with_services(lab())
    etc = operators(built)
    conf = etc / "ocserv.conf"
    conf.write_bytes(form(conf.read_bytes()))
    before = conf.read_bytes()
    works(Served(built, gateway.run(built, {}, etc)))
    assert conf.read_bytes() == before


@pytest.mark.releases
def test_virtual_hosts(lab: LabFactory) -> None:
    """Sessions of the main host and of a `[vhost:…]`, the file's last section and without final
    newline, pass our hooks, each with its own network, and both are masqueraded.
    """
    built = with_services(lab())
    etc = operators(built)
    write_users(etc / "passwd-b", {"bob": PASSWORD})
    write_certificate(etc / "b-cert.pem", etc / "b-key.pem", [])
    lines = (
        "[vhost:b.example]",
        f'auth = "plain[passwd={etc}/passwd-b]"',
        f"server-cert = {etc}/b-cert.pem",
        f"server-key = {etc}/b-key.pem",
        "ipv4-network = 10.30.0.0/24",
        "route = default",
    )
    with (etc / "ocserv.conf").open("a") as file:
        file.write("\n".join(lines))
    served = Served(built, gateway.run(built, {}, etc))
    works(served)
    bob = served.gateway.login("bob", PASSWORD, "b-cert.pem")
    client = paste(
        built,
        built.clients[0],
        f"echo '{PASSWORD}' | sudo openconnect --non-inter --passwd-on-stdin --user=bob --no-dtls "
        f"--servercert={bob.pin} --resolve=b.example:{built.server} https://b.example",
        dtls=False,
    )
    client.wait_connected()
    assert client.address is not None and str(client.address).startswith("10.30.0.")
    assert ask_udp(client.netns, SERVICE).seen_as == built.router.address
    [session] = served.sessions()
    assert (session["user"], session["vhost"]) == ("bob", "b.example")
    assert served.gateway.status()["network"]["subnets4"] == ["10.10.10.0/24", "10.30.0.0/24"]


# --- the operator's own scripts -----------------------------------------------------------------


def recorder(directory: Path, *, refuses: str = "") -> Path:
    """A script that records its environment as REASON-USERNAME, and refuses one user."""
    script = directory / "record"
    refusal = f'[ "$USERNAME" = {shlex.quote(refuses)} ] && exit 7\n' if refuses else ""
    script.write_text(
        f"#!/bin/sh\nenv -0 >{directory}/.new.$$\n"
        f'mv {directory}/.new.$$ "{directory}/$REASON-$USERNAME"\n{refusal}exit 0\n'
    )
    script.chmod(0o755)
    return script


def recorded(path: Path) -> dict[str, str]:
    """The environment that a script recorded."""
    wait_until(path.exists, 5.0, f"{path.name} to be recorded")
    items = path.read_bytes().decode().rstrip("\0").split("\0")
    return dict(item.split("=", 1) for item in items)


# Other by nature: the pid, counters, and what comes from whoever started ocserv.
_COUNTERS = {"STATS_BYTES_IN", "STATS_BYTES_OUT", "STATS_DURATION"}
_VARY = frozenset({"ID", *_COUNTERS, "HOME", "LANG", "PATH", "PWD"})


def steady(environ: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in _VARY}


@pytest.mark.releases
def test_own_scripts_run_with_ocservs_environment(lab: LabFactory) -> None:
    """The operator's connect and disconnect scripts see, chained behind our hook, exactly what bare
    ocserv gives them, and nothing of ours.
    """
    seen: list[dict[str, dict[str, str]]] = []
    for chained in (False, True):
        built = with_services(lab())
        records = built.path("records")
        records.mkdir()
        script = str(recorder(records))
        settings: dict[str, str | None] = {"connect-script": script, "disconnect-script": script}
        if chained:
            environ = {"OCGATE_PASSWORD": "not for scripts", "OCGATE_USER": "someone"}
            served = serve(built, settings=settings, environ=environ)
            client = served.connect(dtls=False)
        else:
            bare = run_ocserv(built, {"alice": PASSWORD}, settings=settings)
            client = connect(built, built.clients[0], bare.login("alice"), dtls=False)
        assert recorded(records / "connect-alice")
        client.disconnect()
        seen.append(
            {reason: recorded(records / f"{reason}-alice") for reason in ("connect", "disconnect")}
        )
    bare_saw, chained_saw = seen
    for reason in ("connect", "disconnect"):
        assert steady(bare_saw[reason]) == steady(chained_saw[reason])
        assert set(chained_saw[reason]) - set(bare_saw[reason]) == set()
        assert {"ID", "USERNAME", "IP_REMOTE", "DEVICE"} <= set(chained_saw[reason])
    assert int(chained_saw["disconnect"]["STATS_BYTES_IN"]) >= 0
    assert chained_saw["connect"]["ID"] == chained_saw["disconnect"]["ID"]


@pytest.mark.releases
def test_refusing_script_refuses_the_client(lab: LabFactory) -> None:
    """Where the operator's connect script says no, the client is refused and no kernel state and no
    session stay; for others it goes on.
    """
    built = with_services(lab())
    records = built.path("records")
    records.mkdir()
    script = str(recorder(records, refuses="mallory"))
    settings: dict[str, str | None] = {"connect-script": script, "disconnect-script": script}
    served = serve(built, ["alice", "mallory"], settings=settings)
    works(served)
    serving = served.gateway.state()
    with pytest.raises(Refused) as refused:
        served.connect(user="mallory", dtls=False)
    assert refused.value.returncode == 2
    assert recorded(records / "connect-mallory")["USERNAME"] == "mallory"
    wait_until(lambda: not serving.differences(served.gateway.state()), 2.0, "no kernel state")
    assert served.sessions() == []
    assert not (records / "disconnect-mallory").exists()
    works(served)


def test_own_paths_are_kept(lab: LabFactory) -> None:
    """The operator's socket-file and occtl-socket-file stay where they are named; the pid file is
    in the run dir in any case, where scripts look for it.
    """
    built = with_services(lab())
    own = built.path("own")
    own.mkdir()
    settings = {
        "socket-file": str(own / "ocserv.sock"),
        "occtl-socket-file": str(own / "occtl.sock"),
        "pid-file": str(own / "ocserv.pid"),
    }
    served = serve(built, settings=settings)
    client = served.connect(dtls=False)
    users = occtl(built.gw, own / "occtl.sock", "show", "users")
    assert [user["Username"] for user in users] == ["alice"]
    assert list(own.glob("ocserv.sock*"))
    assert not list(served.gateway.run_dir.glob("oc*.sock*"))
    assert Path(f"/proc/{served.gateway.pid('ocserv.pid')}").exists()
    assert (served.gateway.status()["healthy"], len(served.sessions())) == (True, 1)
    client.disconnect()
    served.wait_no_sessions()


# --- ocgate's own first configuration -----------------------------------------------------------


def shown_password(text: str) -> str:
    found = re.findall(r"^ +Password +(\S+)$", text, re.MULTILINE)
    assert len(found) == 1, text
    return str(found[0])


def files_with(secret: str, *directories: Path) -> list[Path]:
    paths = (path for directory in directories for path in directory.rglob("*") if path.is_file())
    return [path for path in paths if secret.encode() in path.read_bytes()]


@pytest.mark.releases
@pytest.mark.parametrize("first", ["run", "init"])
def test_password_is_shown_once(lab: LabFactory, first: str) -> None:
    """`run` or `init` on an empty config dir shows the password once; started again nothing is
    changed and no secret is shown or stored in clear.
    """
    built = with_services(lab())
    started = gateway.start(built, arguments=(first,))
    if first == "run":
        started.wait_ready()
        works_for_vpn(built, started, shown_password(started.output))
        started.stop()
        assert started.left_behind() == []
    else:
        assert started.program.wait(INIT_SECONDS) == 0
    password = shown_password(started.output)
    # The card and the line to paste; nowhere else, and never in the log.
    assert started.program.stdout.count(password) == 2
    assert password not in started.program.stderr
    etc = started.config_dir
    before = contents(etc)
    again = gateway.run(built, {}, etc)
    works_for_vpn(built, again, password)
    again.stop()
    assert contents(etc) == before
    for secret in (password, "PRIVATE KEY", "$5$", "$6$"):
        assert secret not in again.output
    assert "openconnect --" not in again.output
    assert files_with(password, etc, started.run_dir, again.run_dir) == []


def works_for_vpn(lab: Lab, run: Gateway, password: str) -> None:
    certificate = next(run.config_dir.glob("*cert*.pem")).name
    client = connect(lab, lab.clients[0], run.login("vpn", password, certificate), dtls=False)
    assert ask_tcp(client.netns, SERVICE).seen_as == lab.router.address
    client.disconnect()
    wait_until(lambda: not run.status()["sessions"], 5.0, "the end of the session")


def test_password_of_the_operator_is_not_shown(lab: LabFactory) -> None:
    """OCGATE_USER and OCGATE_PASSWORD make the first user; that password is never repeated."""
    built = lab()
    environ = {"OCGATE_USER": "carol", "OCGATE_PASSWORD": "a password of mine"}
    run = gateway.run(built, environ)
    assert "a password of mine" not in run.output
    assert files_with("a password of mine", run.config_dir, run.run_dir) == []
    certificate = next(run.config_dir.glob("*cert*.pem")).name
    login = run.login("carol", "a password of mine", certificate)
    assert connect(built, built.clients[0], login, dtls=False).address == IPv4Address(
        str(run.status()["sessions"][0]["address4"])
    )


def paste(lab: Lab, host: Host, line: str, *, dtls: bool = True) -> Client:
    """Run the line in a shell of `host`, as a person does. `sudo` is a stub: it adds the lab's
    script, because the system's would rewrite this machine's /etc/resolv.conf.
    """
    work, stubs = lab.path("pasted"), lab.path("bin")
    (work / "events").mkdir(parents=True)
    stubs.mkdir()
    uplinks = (
        f"via {host.next_hop} dev eth0 src {host.address}",
        f"via {host.next_hop6} dev eth0 src {host.address6}",
    )
    vpnc_script.write_uplinks(str(work), *uplinks)
    script = shlex.quote(f"/usr/bin/python3 -I -S {vpnc_script.__file__} {work}")
    sudo = stubs / "sudo"
    sudo.write_text(f'#!/bin/sh\nexec "$@" --script={script} --interface={TUN}\n')
    sudo.chmod(0o755)
    path = f"{stubs}:{BASE_ENVIRON['PATH']}"
    program = lab.spawn(host, ["sh", "-c", line], environ={"PATH": path})
    return Client(lab, host, program, work, dtls=dtls)


@pytest.mark.parametrize("published", [True, False], ids=["url", "no-url"])
def test_printed_line_works_when_pasted(lab: LabFactory, published: bool) -> None:
    """The complete openconnect line connects as it is, with OCGATE_URL through the published port,
    without it by the machine's own address; and the certificate is for that address.
    """
    built = with_services(lab(Options(docker_nat=published)))
    url = f"https://{built.server}"
    run = gateway.run(built, {"OCGATE_URL": url} if published else {})
    [line] = [line for line in run.lines() if "| sudo openconnect" in line]
    assert line.endswith(url)
    client = paste(built, built.clients[0], line)
    client.wait_connected()
    assert ask_udp(client.netns, SERVICE).seen_as == built.server
    certificate = next(run.config_dir.glob("*cert*.pem"))
    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    san = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert built.server in san.get_values_for_type(x509.IPAddress)
    assert built.gw.address in san.get_values_for_type(x509.IPAddress)


def test_certificate_has_the_urls_name(lab: LabFactory) -> None:
    """OCGATE_URL with a name puts it into the SANs, beside the machine's own addresses."""
    built = lab(Options(clients=0))
    made = gateway.start(built, {"OCGATE_URL": "https://vpn.example.org:8443"}, arguments=("init",))
    assert made.program.wait(INIT_SECONDS) == 0, made.output
    certificate = next(made.config_dir.glob("*cert*.pem"))
    names = x509.load_pem_x509_certificate(certificate.read_bytes()).extensions
    san = names.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "vpn.example.org" in san.get_values_for_type(x509.DNSName)
    own = {built.gw.address, ip_address(str(built.gw.address6))}
    assert own <= set(san.get_values_for_type(x509.IPAddress))
    assert "https://vpn.example.org:8443" in made.output
    assert made.left_behind() == []

"""The image as `docker run` uses it: what it needs, what it says when that is missing, its end.

client1 === inet === host1 -- bridge -- ocgate
"""

from __future__ import annotations

import pytest

from lab.docker_host import Machines
from lab.example import leaves_by
from ocgate.netlab.wait import wait_until
from support.container import (
    LEAST,
    NAME,
    NEEDED,
    PASSWORD,
    Container,
    SiteFactory,
    command_of,
    refused,
    status_of,
)

pytestmark = pytest.mark.image

READ_ONLY = ("--read-only", "--read-only-tmpfs=false", "--tmpfs", "/run:exec", "--tmpfs", "/tmp")
TIGHT = (
    *("--cap-drop", "ALL"),
    *(word for name in LEAST for word in ("--cap-add", name)),
    *("--security-opt", "no-new-privileges"),
)


def test_a_container_serves_with_the_capability_the_device_and_forwarding_alone(
    site: SiteFactory,
) -> None:
    """What a first start prints is what a client needs; each process holds less than it was given,
    and workers hold nothing."""
    built = site()
    container = Container(built, *NEEDED).wait_serving()
    client = container.join(container.login(password=container.printed("Password")))
    assert leaves_by(client) == built.host.address
    held = {command_of(p): int(status_of(p, "CapEff"), 16) for p in container.processes()}
    [pid1] = [mask for command, mask in held.items() if command.startswith("s6-svscan")]
    [control] = [mask for command, mask in held.items() if "ocgate.server.daemon" in command]
    relays = [mask for command, mask in held.items() if "relay" in command]
    workers = [mask for command, mask in held.items() if "ocserv-worker" in command]
    assert pid1 & 1 << 12, "positive control: NET_ADMIN is seen where it is held"
    assert control & ~pid1 == 0
    assert control.bit_count() < pid1.bit_count()
    assert relays == [0, 0]
    assert workers == [0]


def test_a_container_serves_read_only_with_the_least_capabilities_and_no_new_privileges(
    site: SiteFactory,
) -> None:
    """... and a new one on the same volume lets the same user in, and shows no secret again. A
    session can be ended, which takes CAP_KILL."""
    built = site()
    options = (*NEEDED, *TIGHT, *READ_ONLY, "-v", "kept:/etc/ocserv")
    container = Container(built, *options, "-e", f"OCGATE_PASSWORD={PASSWORD}").wait_serving()
    before = container.login()
    container.engine.podman("rm", "--force", "--time", "10", NAME)
    container.engine.podman("run", "-d", "--name", NAME, "-p", "443:443/tcp", "-p", "443:443/udp",
                            *options, "ocgate")  # fmt: skip
    container.wait_serving()
    assert container.login() == before
    assert "Password" not in container.logs()
    client = container.join(before)
    assert leaves_by(client) == built.host.address
    assert all(status_of(process, "NoNewPrivs") == "1" for process in container.processes())
    container.exec("occtl", "disconnect", "user", "vpn")
    wait_until(lambda: not client.program.running(), 10, "the end of the session")


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        pytest.param((), ("--cap-add NET_ADMIN", "--device /dev/net/tun"), id="nothing given"),
        pytest.param(
            (*NEEDED[:4], "--sysctl", "net.ipv4.ip_forward=0"),
            ("--sysctl net.ipv4.ip_forward=1",),
            id="no forwarding",
        ),
        pytest.param(
            (*NEEDED, "--read-only", "--read-only-tmpfs=false"),
            ("--tmpfs /run:exec",),
            id="nowhere to write",
        ),
        pytest.param((*NEEDED, "--tmpfs", "/run:noexec"), ("--tmpfs /run:exec",), id="noexec"),
        pytest.param((*NEEDED, "--cap-drop", "KILL"), ("--cap-add KILL",), id="no KILL"),
        pytest.param((*NEEDED, "--pids-limit", "30"), ("--pids-limit 1024",), id="few processes"),
        pytest.param(
            (*NEEDED, "--ulimit", "nofile=128:128", "--ulimit", "nproc=1024:1024"),
            ("--ulimit nofile=4096",),
            id="few files",
        ),
        pytest.param(
            (*NEEDED, "-v", "empty:/etc/ocserv:ro"),
            ("-v ocgate:/etc/ocserv",),
            id="read-only volume",
        ),
    ],
)
def test_what_is_missing_is_named_with_its_flag_and_compose_key_and_the_status_is_1(
    site: SiteFactory, options: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    status, said = refused(site(Machines(clients=0)), *options)
    assert status == 1, said
    for flag in flags:
        assert f"docker run {flag}" in said
    assert "compose: " in said
    assert "Traceback" not in said


def test_a_stop_ends_everything_with_status_0(site: SiteFactory) -> None:
    """Within docker's 10 s, after which it would be killed (137); what a command left behind before
    is reaped by process 1."""
    container = Container(site(Machines(clients=0)), *NEEDED).wait_serving()
    container.exec("sh", "-c", "(sleep 0.2 &)")
    wait_until(
        lambda: (
            not any("Z" in status_of(p, "State") for p in container.processes())
            and not any(command_of(p).startswith("sleep") for p in container.processes())
        ),
        10,
        "the orphan to be reaped",
    )
    container.engine.podman("stop", NAME)
    assert container.engine.inspect(NAME)["State"]["ExitCode"] == 0
    assert "nothing of ours is left in the kernel" in container.logs()


def test_sighup_reloads_without_ending_anything(site: SiteFactory) -> None:
    container = Container(site(Machines(clients=0)), *NEEDED).wait_serving()
    container.engine.podman("kill", "--signal", "HUP", NAME)
    wait_until(lambda: "svc-control: reloaded" in container.logs(), 10, "the reload")
    assert container.exec("ocgate", "healthcheck") == "healthy"


def test_a_password_comes_from_a_secret_that_only_root_may_read(site: SiteFactory) -> None:
    """As compose mounts them under /run/secrets; it is not printed, and nobody else may read it."""
    built = site()
    secret = built.path("vpn-password")
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o400)
    environ = ("-e", "OCGATE_USER=alice", "-e", "OCGATE_PASSWORD_FILE=/run/secrets/vpn-password")
    mount = ("-v", f"{secret}:/run/secrets/vpn-password:ro")
    container = Container(built, *NEEDED, *environ, *mount).wait_serving()
    client = container.join(container.login("alice"), dtls=False)
    assert leaves_by(client) == built.host.address
    assert PASSWORD not in container.logs()
    assert "the one you set" in container.logs()


def test_a_secret_that_is_not_there_is_named_with_its_setting(site: SiteFactory) -> None:
    environ = ("-e", "OCGATE_PASSWORD_FILE=/run/secrets/vpn-password")
    status, said = refused(site(Machines(clients=0)), *NEEDED, *environ)
    assert status == 2
    assert "OCGATE_PASSWORD_FILE" in said
    assert "/run/secrets/vpn-password" in said


@pytest.mark.parametrize(
    ("name", "status"),
    [("healthcheck", 0), ("network-diagnostic", 0), ("vpngw-reload", 0), ("bypass-fetch", 2)],
)
def test_the_names_of_others_work_with_docker_exec(
    site: SiteFactory, name: str, status: int
) -> None:
    container = Container(site(Machines(clients=0)), *NEEDED).wait_serving()
    done = container.engine.run(["podman", "exec", NAME, name], check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "svc" not in container.exec("occtl", "show", "users")


def test_the_image_holds_no_trace_of_its_making_and_stays_small(site: SiteFactory) -> None:
    """No key that containers would share, no compiler, pip, cache, log or mount point of the build;
    licences are there."""
    container = Container(site(Machines(clients=0)), *NEEDED).wait_serving()
    gone = (
        "ls /etc/ssl/private/* /run/secrets /setup /opt/wheels /root/.cache /var/log/apt/* "
        "/var/log/dpkg.log /var/cache/apt/*.bin /usr/bin/gcc /usr/bin/pip3 /usr/bin/systemctl "
        "/opt/ocgate/bin/pip 2>/dev/null | grep -v ':$' | grep . || echo nothing"
    )
    assert container.exec("sh", "-c", gone) == "nothing"
    for command in (("--help",), ("run", "--help"), ("exit", "--help")):
        assert "Traceback" not in container.exec("ocgate", *command)
    for package in ("ocserv", "openconnect", "openvpn", "s6", "ocgate"):
        container.exec("test", "-s", f"/usr/share/doc/{package}/copyright")
    size = "du -skx /usr /opt /etc /var --exclude=/etc/ocserv | awk '{s+=$1} END {print s}'"
    base = 80_000 * 1024  # bytes of debian:forky-slim, about
    assert int(container.exec("sh", "-c", size)) * 1024 - base < 180_000_000

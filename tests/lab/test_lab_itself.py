"""The lab shows what it claims to, with bare ocserv and hand-made NAT in the place of ocgate.

client1 --- inet --- router --- gw (ocserv, vpns0)        see lab.topology
"""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab import gateway, topology, vpnc_script
from lab.capture import Capture, Leaked, NoPositiveControl, now
from lab.client import TUN, Login, Refused, connect
from lab.ocserv import VPN_NET, VPN_NET6, run_ocserv
from lab.streams import TcpDownload, UdpDownload, UdpStream, iperf
from lab.topology import (
    RESOLVER,
    RESOLVER6,
    SERVICE,
    SERVICE6,
    Ipv6,
    Lab,
    Options,
)
from lab.traffic import Verdict, ask_tcp, ask_udp, http_get, ping
from ocgate.netlab import namespace
from ocgate.netlab.dns import DnsServer, resolve
from ocgate.netlab.inject import into_tun, routed
from ocgate.netlab.kernel_state import observe
from ocgate.netlab.namespace import Namespace
from ocgate.netlab.packet import build_icmp, build_tcp, build_udp, match, touches
from ocgate.netlab.services import Services
from ocgate.netlab.wait import TimedOut, wait_until

pytestmark = pytest.mark.lab

LabFactory = Callable[..., Lab]
USERS = {"alice": "a secret", "-bob $(x)": "another"}


def with_services(lab: Lab) -> Lab:
    lab.own(Services(lab.inet.netns, (SERVICE, SERVICE6)))
    return lab


# --- topology -----------------------------------------------------------------------------------


def test_everyone_reaches_the_internet_by_both_families(lab: LabFactory) -> None:
    built = with_services(lab(Options(clients=2, neighbours=1)))
    for host in (built.gw, *built.clients, *built.neighbours):
        for service in (SERVICE, SERVICE6):
            assert ask_udp(host.netns, service, data=b"hello").data == b"hello"
            assert ask_tcp(host.netns, service, data=b"hello").data == b"hello"
            assert ping(host.netns, service)


def test_the_service_reports_from_where_it_was_reached(lab: LabFactory) -> None:
    built = with_services(lab())
    client, gw = built.clients[0], built.gw
    assert ask_udp(client.netns, SERVICE).seen_as == client.address
    assert ask_udp(client.netns, SERVICE6).seen_as == client.address6
    # Docker's masquerade for IPv4, plain routing for IPv6.
    assert ask_tcp(gw.netns, SERVICE).seen_as == built.router.address
    assert ask_tcp(gw.netns, SERVICE6).seen_as == gw.address6


def test_without_docker_nat_gw_is_reached_and_seen_by_its_own_address(lab: LabFactory) -> None:
    built = with_services(lab(Options(docker_nat=False)))
    assert built.server == built.gw.address
    assert ask_udp(built.gw.netns, SERVICE).seen_as == built.gw.address


def test_ipv6_modes(lab: LabFactory) -> None:
    assert not lab(Options(ipv6=Ipv6.NONE)).gw.netns.run(["ip", "-6", "route"]).stdout
    broken = with_services(lab(Options(ipv6=Ipv6.NO_EGRESS)))
    assert ask_tcp(broken.gw.netns, SERVICE6, timeout=0.2).verdict is Verdict.SILENT
    assert ask_tcp(broken.clients[0].netns, SERVICE6)
    broken.set_ipv6_egress(works=True)
    assert ask_tcp(broken.gw.netns, SERVICE6)
    broken.set_ipv6_egress(works=False)
    assert ask_tcp(broken.gw.netns, SERVICE6, timeout=0.2).verdict is Verdict.SILENT


def test_wan_moves_to_the_second_uplink(lab: LabFactory) -> None:
    built = with_services(lab(Options(second_uplink=True)))
    second = built.capture(built.router, "docker2")
    assert ask_udp(built.gw.netns, SERVICE)
    assert not second.count(match(dst=SERVICE))
    built.move_wan()
    assert ask_udp(built.gw.netns, SERVICE)
    assert ask_udp(built.gw.netns, SERVICE6)
    assert second.count(match(dst=SERVICE)) == 1


def test_a_lab_is_built_and_removed_fast(lab: LabFactory) -> None:
    started = time.monotonic()
    built = lab()
    up = time.monotonic() - started
    built.close()
    # 0.1 s on an idle machine; the rest is for busy ones. It is what a suite's run time hangs on.
    assert up < 10
    assert not namespace.owned()


def test_what_a_killed_test_run_left_is_swept(tmp_path: Path) -> None:
    script = textwrap.dedent("""
        import time
        from lab.topology import Lab
        lab = Lab().__enter__()
        program = lab.spawn(lab.gw, ["sleep", "600"])
        print(lab.gw.netns.name, program.pid, flush=True)
        time.sleep(600)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as run:
        assert run.stdout is not None
        name, pid = run.stdout.readline().split()
        path = namespace.NETNS_DIR / name.decode()
        assert path.exists()
        run.send_signal(signal.SIGKILL)
    topology.sweep()
    assert not path.exists()
    wait_until(lambda: not Path(f"/proc/{int(pid)}").exists(), 2.0, "the orphan to be gone")


def test_leftover_processes_are_told_and_killed() -> None:
    built = Lab().__enter__()
    with built.gw.netns.entered():
        rogue = subprocess.Popen(["sleep", "600"])
    built.close()
    assert built.leftovers == [f"gw: {rogue.pid} sleep 600"]
    assert rogue.wait(1) == -signal.SIGKILL


# --- captures -----------------------------------------------------------------------------------


def test_assert_none_refuses_without_a_positive_control(lab: LabFactory) -> None:
    built = with_services(lab())
    capture = built.capture(built.router, "uplink")
    leak = match(dst=SERVICE, protocol="udp")
    with pytest.raises(NoPositiveControl):
        capture.assert_none(leak, "UDP to the service")
    with pytest.raises(TimedOut):
        capture.prove_sees(leak, "UDP to the service", timeout=0.05)
    with pytest.raises(NoPositiveControl):
        capture.assert_none(leak, "UDP to the service")
    ask_udp(built.gw.netns, SERVICE)
    capture.prove_sees(leak, "UDP to the service")
    with pytest.raises(Leaked, match=r"172\.28\.0\.10|203\.0\.113\.1 -> 198\.51\.100\.10"):
        capture.assert_none(leak, "UDP to the service")
    capture.assert_none(leak, "UDP to the service", since=now())


def test_a_capture_misses_nothing_at_20_000_packets_a_second(lab: LabFactory) -> None:
    built = lab()
    capture = built.capture(built.inet, "client1")
    packet = build_udp(built.clients[0].address, SERVICE, 1, 9, b"burst" * 20)
    started = time.monotonic()
    routed(built.clients[0].netns, *[packet] * 20_000)
    rate = 20_000 / (time.monotonic() - started)
    assert capture.count(match(dst=SERVICE, dport=9)) == 20_000
    assert capture.dropped() == 0
    assert rate > 5_000, "the burst was too slow to show anything"


def test_a_capture_that_lost_packets_does_not_vouch(lab: LabFactory) -> None:
    built = lab(Options(clients=1))
    client = built.clients[0]
    # Too small for one bunch of packets between two runs of its thread.
    capture = built.own(Capture(client.netns, "eth0", queue_bytes=4096))
    packet = build_udp(client.address, SERVICE, 1, 9, b"burst")
    routed(client.netns, *[packet] * 2000)
    capture.prove_sees(match(dport=9), "the burst")
    assert capture.count(match(dport=9)) + capture.dropped() >= 2000
    with pytest.raises(NoPositiveControl, match=r"dropped \d+"):
        capture.assert_none(match(dport=10), "what it may have missed")


def test_evidence_is_a_pcap_that_tcpdump_reads(lab: LabFactory, tmp_path: Path) -> None:
    built = with_services(lab())
    capture = built.capture(built.inet, "router")
    ask_udp(built.gw.netns, SERVICE)
    ask_udp(built.gw.netns, SERVICE6)
    capture.wait_for(match(src=SERVICE6), "the reply")
    built.save_evidence(tmp_path)
    argv = ["tcpdump", "-nr", str(tmp_path / "0-inet-router.pcap")]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "203.0.113.1" in shown
    assert "2001:db8:51::10.7" in shown


@pytest.mark.parametrize("v6", [False, True])
def test_built_packets_are_what_the_kernel_accepts(lab: LabFactory, v6: bool) -> None:
    built = with_services(lab())
    client = built.clients[0]
    capture = built.capture(client, "eth0")
    me, to = (client.address6, SERVICE6) if v6 else (client.address, SERVICE)
    echo = (128, 0) if v6 else (8, 0)
    routed(
        client.netns,
        build_udp(me, to, 4000, 7, b"valid"),
        build_tcp(me, to, 4001, 7, flags=0x02),
        build_icmp(me, to, echo, b"\1\2\3\4data"),
    )
    # Each is answered, so its checksum was right.
    capture.wait_for(match(src=to, sport=7, dport=4000, marker=b"valid"), "the UDP echo")
    capture.wait_for(match(src=to, protocol="tcp", flags=0x12, dport=4001), "SYN and ACK")
    capture.wait_for(match(src=to, kind=(129, 0) if v6 else (0, 0)), "the ping's reply")


def test_addresses_match_by_network_and_family() -> None:
    assert match(src="10.0.0.0/8")
    assert touches(VPN_NET)


# --- services and traffic -----------------------------------------------------------------------


def test_verdicts(lab: LabFactory) -> None:
    built = with_services(lab())
    client = built.clients[0].netns
    assert ask_tcp(client, SERVICE, 4444).verdict is Verdict.REFUSED
    closed = ask_udp(client, SERVICE, 4444)
    assert (closed.verdict, closed.kind, closed.by) == (Verdict.REJECTED, (3, 3), SERVICE)
    built.inet.netns.nft("""
        table inet fault { chain in { type filter hook input priority 0;
            tcp dport 7 reject with icmpx admin-prohibited
            udp dport 7 reject with icmpx admin-prohibited
            icmp type echo-request drop; }; }
    """)
    for service, kind in ((SERVICE, (3, 13)), (SERVICE6, (1, 1))):
        assert ask_tcp(client, service).verdict is Verdict.REJECTED
        answer = ask_udp(client, service)
        assert (answer.verdict, answer.kind) == (Verdict.REJECTED, kind)
        assert answer.at_once
    assert ping(client, SERVICE, timeout=0.1).verdict is Verdict.SILENT
    built.clients[0].netns.ip("route del default", "route del ::/0")
    assert ask_udp(client, SERVICE).verdict is Verdict.NO_ROUTE
    assert ping(client, SERVICE6).verdict is Verdict.NO_ROUTE


def test_streams_count_what_was_lost(lab: LabFactory) -> None:
    built = with_services(lab())
    client = built.clients[0].netns
    with UdpStream(client, SERVICE, rate=500) as stream:
        stream.wait_for(50)
        client.nft("table inet cut { chain c { type filter hook input priority 0; drop; }; }")
        cut = time.monotonic()
        wait_until(lambda: time.monotonic() > cut + 0.2, 1.0, "the cut to last")
        client.nft("delete table inet cut")
        count = len(stream.tally.received)
        stream.wait_for(count + 50)
    assert stream.tally.lost >= 50
    assert 0.15 < stream.tally.longest_gap() < 3.0


def test_downloads(lab: LabFactory) -> None:
    built = with_services(lab())
    client = built.clients[0].netns
    capture = built.capture(built.clients[0], "eth0")
    with UdpDownload(client, SERVICE6, rate=2000, count=200) as udp:
        assert udp.wait(5.0).lost == 0
    with TcpDownload(client, SERVICE, size=500_000) as tcp:
        tcp.wait(5.0)
    assert tcp.bytes_received > 500_000
    for marker in (udp.marker, tcp.marker):
        capture.prove_sees(match(marker=marker), "the download in clear")
    assert http_get(client, SERVICE, "/whoami").startswith(b"192.0.2.10 ")


def test_dns_server_answers_from_its_table_and_remembers(lab: LabFactory) -> None:
    built = lab()
    client = built.clients[0]
    table = {"www.example": (SERVICE, SERVICE6)}
    server = built.own(DnsServer(built.inet.netns, (RESOLVER, RESOLVER6), table))
    assert resolve(client.netns, RESOLVER, "www.example").addresses == (SERVICE,)
    assert resolve(client.netns, RESOLVER6, "www.example", "AAAA").addresses == (SERVICE6,)
    assert resolve(client.netns, RESOLVER, "no.example").rcode == 3
    assert resolve(client.netns, SERVICE, "www.example", timeout=0.2).silent
    seen = [(str(q.client), q.name, q.kind) for q in server.queries]
    assert seen == [
        ("192.0.2.10", "www.example", "A"),
        ("2001:db8:c:1::2", "www.example", "AAAA"),
        ("192.0.2.10", "no.example", "A"),
    ]


def test_iperf(lab: LabFactory) -> None:
    built = lab()
    assert iperf(built, built.clients[0], SERVICE, seconds=1) > 1e6


# --- the VPN ------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtls", [False, True])
def test_client_reaches_the_internet_through_bare_ocserv(lab: LabFactory, dtls: bool) -> None:
    built = with_services(lab())
    ocserv = run_ocserv(built, USERS)
    inside = built.capture(built.gw)
    uplink = built.capture(built.clients[0], "eth0")
    client = connect(built, built.clients[0], ocserv.login("alice"), dtls=dtls)
    assert client.address in VPN_NET
    assert client.address6 is None
    assert client.dns == [str(RESOLVER)]
    answer = ask_udp(client.netns, SERVICE, data=b"through the tunnel")
    assert answer.seen_as == built.router.address
    assert ask_tcp(client.netns, SERVICE).seen_as == built.router.address
    assert ping(client.netns, SERVICE)
    inside.prove_sees(
        match(src=client.address, marker=b"through the tunnel", interface="vpns0"), "the request"
    )
    inside.prove_sees(match(dst=SERVICE, marker=b"through the tunnel", interface="eth0"), "NATed")
    uplink.prove_sees(match(dst=built.server, protocol="udp" if dtls else "tcp"), "the tunnel")
    uplink.assert_none(match(marker=b"through the tunnel"), "clear text")
    assert [user["Username"] for user in ocserv.occtl("show", "users")] == ["alice"]
    assert client.disconnect() == 0
    assert ask_udp(client.netns, SERVICE).seen_as == client.host.address


def test_both_families_in_a_full_tunnel(lab: LabFactory) -> None:
    built = with_services(lab())
    settings = {"ipv6-network": str(VPN_NET6)}
    ocserv = run_ocserv(built, USERS, settings=settings, masquerade=(VPN_NET, VPN_NET6))
    client = connect(built, built.clients[0], ocserv.login("alice"), server=built.server6)
    assert client.address6 in VPN_NET6
    assert ask_tcp(client.netns, SERVICE6).seen_as == built.gw.address6
    assert ask_tcp(client.netns, SERVICE).seen_as == built.router.address


def test_split_tunnel_carries_only_its_routes(lab: LabFactory) -> None:
    built = with_services(lab())
    ocserv = run_ocserv(built, USERS, lines=["route = 198.51.100.0/255.255.255.192"])
    client = connect(built, built.clients[0], ocserv.login("alice"), dtls=False)
    assert ask_udp(client.netns, SERVICE).seen_as == built.router.address
    assert ask_udp(client.netns, SERVICE6).seen_as == client.host.address6
    # Not in the tunnel, and the internet has no route to a private network.
    assert ask_udp(client.netns, built.gw.address).by == client.host.next_hop


def test_excluded_routes_bypass_the_tunnel(lab: LabFactory) -> None:
    built = with_services(lab())
    lines = ["route = default", f"no-route = {SERVICE}/255.255.255.255"]
    ocserv = run_ocserv(built, USERS, lines=lines)
    client = connect(built, built.clients[0], ocserv.login("alice"), dtls=False)
    assert ask_udp(client.netns, SERVICE).seen_as == client.host.address
    assert ask_udp(client.netns, built.gw.address).by == built.gw.address


def test_wrong_password_and_wrong_pin_are_told(lab: LabFactory) -> None:
    built = lab()
    ocserv = run_ocserv(built, USERS)
    good = ocserv.login("alice")
    with pytest.raises(Refused, match="Login failed") as wrong:
        connect(built, built.clients[0], Login("alice", "nonsense", good.pin))
    assert wrong.value.returncode != 0
    with pytest.raises(Refused, match="fingerprint"):
        connect(built, built.clients[0], Login("alice", good.password, "pin-sha256:" + "A" * 43))
    assert connect(built, built.clients[0], ocserv.login("-bob $(x)"), dtls=False).address


def test_spoofed_packets_of_a_client_arrive_on_its_tun(lab: LabFactory) -> None:
    built = with_services(lab())
    ocserv = run_ocserv(built, USERS)
    capture = built.capture(built.gw)
    client = connect(built, built.clients[0], ocserv.login("alice"))
    for number, source in enumerate(("10.10.10.99", "192.168.7.7", "fe80::1", "2001:db8:f::1")):
        to = SERVICE6 if ":" in source else SERVICE
        marker = f"spoofed {number}".encode()
        into_tun(client.netns, TUN, build_udp(source, to, 5000, 7, marker))
        capture.prove_sees(match(src=source, marker=marker, interface="vpns0"), "spoofed")


def test_reconnect_and_roaming_keep_the_address(lab: LabFactory) -> None:
    built = with_services(lab())
    ocserv = run_ocserv(built, USERS)
    client = connect(built, built.clients[0], ocserv.login("alice"))
    before = client.address
    client.reconnect()
    assert client.address == before
    capture = built.capture(built.inet, "client1")
    client.roam()
    capture.prove_sees(match(src=client.host.second, dport=443), "the new path")
    assert client.address == before
    assert client.netns.run(["ip", "route", "get", str(SERVICE)]).stdout.count(TUN)
    assert ask_udp(client.netns, SERVICE)
    # Half-open: the server has heard nothing from the old address.
    assert not capture.count(match(src=client.host.address, protocol="tcp", flags=0x01))


def test_kernel_state_tells_what_changed(lab: LabFactory) -> None:
    built = lab(Options(clients=0))
    gw = built.gw.netns
    before = observe(gw)
    assert not before.differences(observe(gw))
    gw.nft("table inet mine { chain c { type filter hook input priority 0; counter; }; }")
    gw.ip("rule add from 10.0.0.0/8 lookup 100", "route add blackhole 10.10.10.0/24 table 100")
    gw.ip("rule add from 2001:db8::/32 lookup 100", v6=True)
    gw.ip("route add blackhole 2001:db8:7::/48 metric 9")
    gw.sysctl("net/ipv4/ip_forward", 1)
    changed = before.differences(observe(gw))
    for field in ("nft: +", "rules: +", "routes: +", "sysctls: -", "sysctls: +"):
        assert any(line.startswith(field) for line in changed), field
    gw.nft("delete table inet mine")
    gw.ip("rule del from 10.0.0.0/8", "route del blackhole 10.10.10.0/24 table 100")
    gw.ip("rule del from 2001:db8::/32", v6=True)
    gw.ip("route del blackhole 2001:db8:7::/48 metric 9")
    gw.sysctl("net/ipv4/ip_forward", 0)
    assert not before.differences(observe(gw))


# --- the runner of `ocgate run` -----------------------------------------------------------------

# Does what the runner relies on and nothing else: pid file, socket, listener, kernel state.
STAND_IN = """
import json, os, pathlib, signal, socket, subprocess, sys
def ip(verb): subprocess.run(["ip", "route", verb, "blackhole", "10.10.10.0/24"], check=True)
def stop(*_):
    ip("del")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
run_dir = pathlib.Path(os.environ["OCGATE_RUN_DIR"])
run_dir.mkdir()
(run_dir / "control.pid").write_text(str(os.getpid()))
print("resolver:", pathlib.Path("/etc/resolv.conf").read_text().strip(), flush=True)
print("links:", *sorted(os.listdir("/sys/class/net")), flush=True)
ip("replace")
listener = socket.create_server(("", 443))
control = socket.socket(socket.AF_UNIX)
control.bind(str(run_dir / "control.sock"))
control.listen()
while True:
    peer, _ = control.accept()
    peer.sendall(json.dumps({"asked": peer.recv(99).decode()}).encode())
    peer.close()
"""


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway, "command", lambda *_: [sys.executable, "-c", STAND_IN])


@pytest.mark.usefixtures("stand_in")
def test_gateway_runs_looks_inside_and_stops(lab: LabFactory) -> None:
    built = lab(Options(clients=0))
    running = gateway.run(built, resolv_conf=f"nameserver {RESOLVER}")
    assert running.status() == {"asked": "ocgate/1 status\0\0"}
    assert running.lines() == [f"resolver: nameserver {RESOLVER}", "links: eth0 lo"]
    assert running.pid() == running.program.pid
    assert [line[:9] for line in running.left_behind()] == ["routes: +"]
    assert running.stop() < 10.0
    assert not running.left_behind()


@pytest.mark.usefixtures("stand_in")
def test_gateway_crash_leaves_its_kernel_state_and_no_process(lab: LabFactory) -> None:
    built = lab(Options(clients=0))
    running = gateway.run(built)
    running.crash()
    assert running.left_behind()
    assert not built.gw.netns.pids()
    again = gateway.run(built)
    assert again.kill() == again.program.pid
    assert again.program.wait(2.0) == -signal.SIGKILL


def test_gateway_that_refuses_to_start_shows_its_words(
    lab: LabFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "command", lambda *_: ["sh", "-c", "echo no such thing; exit 2"])
    with pytest.raises(gateway.GatewayEnded, match="no such thing") as ended:
        gateway.run(lab(Options(clients=0)))
    assert ended.value.returncode == 2


# --- what the client's script does --------------------------------------------------------------


def test_script_routes_full_and_split_tunnels_of_both_families() -> None:
    base = {"TUNDEV": "tun0", "VPNGATEWAY": "203.0.113.1", "INTERNAL_IP4_MTU": "1400"}
    v4 = {"INTERNAL_IP4_ADDRESS": "10.0.0.2", "INTERNAL_IP4_DNS": "10.0.0.53"}
    v6 = {"INTERNAL_IP6_NETMASK": "2001:db8:7::2/128"}
    split = {
        "CISCO_SPLIT_INC": "1",
        "CISCO_SPLIT_INC_0_ADDR": "10.7.0.0",
        "CISCO_SPLIT_INC_0_MASKLEN": "16",
    }
    start = ["link set tun0 up mtu 1400", "route replace 203.0.113.1 via up4"]
    address4 = "address replace 10.0.0.2/32 peer 10.0.0.2 dev tun0"
    address6 = "address replace 2001:db8:7::2/128 dev tun0 nodad"
    assert vpnc_script.commands(base | v4 | v6, "via up4", "via up6") == [
        *start,
        address4,
        "route replace 0.0.0.0/0 dev tun0 metric 50",
        address6,
        "route replace ::/0 dev tun0 metric 50",
    ]
    assert vpnc_script.commands(base | v4 | split, "via up4", "via up6") == [
        *start,
        address4,
        "route replace 10.7.0.0/16 dev tun0",
        "route replace 10.0.0.53/32 dev tun0",
    ]


# --- pytest's own fixture -----------------------------------------------------------------------


def test_netns_fixture_is_empty_and_ours(netns: Namespace) -> None:
    assert str(Path(namespace.OWN_NETNS).readlink()) == f"net:[{netns.inode()}]"
    shown = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True)
    assert shown.stdout.split()[0] == "lo"
    assert len(shown.stdout.splitlines()) == 1

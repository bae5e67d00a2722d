"""NordVPN: which servers are asked for and tried, and what becomes of an API that misbehaves."""

from __future__ import annotations

import contextlib
import json
import ssl
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import nordvpn_api as lab
from ocgate.errors import ConfigurationError
from ocgate.tunnel.model import Endpoint, Remote
from ocgate.tunnel.nordvpn import NordVpn
from ocgate.tunnel.nordvpn_api import servers as parsed
from ocgate.tunnel.provider import NotListed, Wish, kept, unkept
from ocgate.tunnel.provider_fetch import Api
from ocgate.tunnel.provider_list import Obtained, obtain, told_age

NORD = NordVpn()
NOW = 1_800_000_000.0


@pytest.fixture
def api(tmp_path: Path) -> Iterator[lab.Api]:
    made = lab.Api(tmp_path)
    yield made
    made.close()


def _client(api: lab.Api, **limits: float) -> Api:
    context = ssl.create_default_context(cafile=str(api.authority))
    changed = {name: value for name, value in limits.items() if name != "largest"}
    largest = int(limits.get("largest", 1 << 20))
    return Api(lab.HOST, ip_address("127.0.0.1"), api.port, context, largest=largest, **changed)


def _obtain(api: lab.Api | None, wish: Wish, cache: Path, now: float = NOW) -> Obtained:
    ask = _client(api).ask if api else None
    return obtain(NORD, wish, ask=ask, cache_dir=cache, now=now)


def _backwards(top: list[object]) -> None:
    top.reverse()


def _labels(api: lab.Api, wish: Wish, tmp_path: Path) -> list[str]:
    listing = _obtain(api, wish, tmp_path).listing
    remotes = NORD.remotes(listing, wish, _backwards)
    return [remote.label.removesuffix(".nordvpn.com") for remote in remotes]


@pytest.mark.parametrize(
    ("wish", "labels"),
    [
        (Wish(), ["de1002", "nl742", "de1001", "us9001"]),
        (Wish(countries=("Germany",)), ["de1002", "de1001"]),
        (Wish(countries=("germany", "nl")), ["de1002", "nl742", "de1001"]),
        (Wish(countries=("81",)), ["de1002", "de1001"]),
        (Wish(cities=("berlin",)), ["de1001"]),
        (Wish(cities=("2181458",), countries=("US",)), ["de1001", "us9001"]),
        (Wish(cities=("new-york",)), ["us9001"]),
        (Wish(groups=("P2P",)), ["nl742"]),
        (Wish(groups=("legacy_p2p", "11"), countries=("NL", "DE")), ["de1002", "nl742", "de1001"]),
        (Wish(countries=("UK",), technology="openvpn_tcp"), ["uk2567"]),
        (Wish(random_top=2), ["nl742", "de1002", "de1001", "us9001"]),
        (Wish(countries=("us9001", "Germany")), ["us9001", "de1002", "de1001"]),
    ],
)
def test_servers_by_place_group_and_load(
    api: lab.Api, tmp_path: Path, wish: Wish, labels: list[str]
) -> None:
    """By name, code or id in any case; the least loaded first; of RANDOM_TOP chance decides."""
    assert _labels(api, wish, tmp_path) == labels


def test_a_listed_servers_address_needs_no_resolver(api: lab.Api, tmp_path: Path) -> None:
    """The API tells addresses; ports are NordVPN's own for UDP and TCP."""
    for technology, port, protocol in (("openvpn_udp", 1194, "udp"), ("openvpn_tcp", 443, "tcp")):
        wish = Wish(countries=("NL",), technology=technology)
        (remote,) = NORD.remotes(_obtain(api, wish, tmp_path).listing, wish, _backwards)
        assert (remote.host, remote.port, remote.protocols) == ("192.0.2.13", port, (protocol,))
        assert remote.label == "nl742.nordvpn.com"


def test_servers_that_are_named_need_no_list() -> None:
    wish = Wish(countries=("US1234", "uk-nl12.nordvpn.com"))
    assert not NORD.needs_list(wish)
    assert NORD.remotes(None, wish, _backwards) == (
        Remote("us1234.nordvpn.com", 1194, ("udp",), "us1234.nordvpn.com"),
        Remote("uk-nl12.nordvpn.com", 1194, ("udp",), "uk-nl12.nordvpn.com"),
    )
    assert NORD.needs_list(Wish())
    assert NORD.needs_list(Wish(countries=("us1234", "DE")))


def test_only_what_is_wanted_is_asked(api: lab.Api, tmp_path: Path) -> None:
    """Filters go into the question, and its answer is still sorted out by us."""
    _obtain(api, Wish(countries=("DE",), groups=("P2P",), cities=("Amsterdam",)), tmp_path)
    ours = "limit=500&filters%5Bservers_technologies%5D%5Bidentifier%5D=openvpn_udp"
    group = "filters%5Bservers_groups%5D%5Bidentifier%5D=legacy_p2p"
    path = "/v1/servers/recommendations"
    assert api.behaviour.asked == [
        "/v1/servers/countries",
        "/v1/servers/groups",
        f"{path}?{ours}&filters%5Bcountry_id%5D=81&{group}",
        f"{path}?{ours}&filters%5Bcountry_id%5D=153&{group}",
    ]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (
            Wish(countries=("Nederlands", "Germny")),
            "environment: COUNTRY: got 'Germny'; expected a name, code or id that NordVPN has. "
            "Write Germany\n"
            "environment: COUNTRY: got 'Nederlands'; expected a name, code or id that NordVPN has. "
            "Write Netherlands",
        ),
        (Wish(cities=("Amsterdm",)), "CITY: got 'Amsterdm'; expected a name, code or id that"),
        (Wish(groups=("p2p servers",)), "GROUP: got 'p2p servers'; expected a name, code or id"),
        (Wish(countries=("XQ",)), "Look it up among NordVPN's servers, or remove it"),
    ],
)
def test_unknown_names_get_the_nearest_known(
    api: lab.Api, tmp_path: Path, wish: Wish, message: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        _obtain(api, wish, tmp_path)
    assert message in str(caught.value)


def test_places_without_a_fitting_server_say_so(api: lab.Api, tmp_path: Path) -> None:
    wish = Wish(countries=("DE",), groups=("P2P",))
    with pytest.raises(NotListed, match="has no server for COUNTRY, CITY, GROUP and TECHNOLOGY"):
        _obtain(api, wish, tmp_path)


Answer = Callable[[BaseHTTPRequestHandler], None]


def _says(status: int, body: bytes, *, length: int | None = None) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", "https://elsewhere.example/")
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def _drop_by_drop(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(b" ")
        time.sleep(0.05)


def _silent(handler: BaseHTTPRequestHandler) -> None:
    time.sleep(2)


MISBEHAVIOUR: list[tuple[str, Answer, str]] = [
    ("broken JSON", _says(200, b"[{"), "the answer is no JSON"),
    ("another shape", _says(200, b'{"servers": []}'), "the answer is no list"),
    ("deep nesting", _says(200, b"[" * 100_000), "the answer is no JSON"),
    ("strangers", _says(200, b'[{"status": "online"}, 5]'), "nothing in the answer can be"),
    ("empty", _says(200, b"[]"), "has no server for COUNTRY"),
    ("nothing", _says(200, b""), "the answer is no JSON"),
    ("error", _says(500, b"oops"), "it answered 500"),
    ("redirect", _says(302, b""), "it answered 302"),
    ("too large", _says(200, b"x" * (2 << 20)), "the answer is larger than 1048576 bytes"),
    ("broken off", _says(200, b"[]", length=100), "the answer broke off"),
    ("drop by drop", _drop_by_drop, "the answer was not there in 0.5 s"),
    ("silence", _silent, "no answer"),
]


@pytest.mark.parametrize(
    ("answer", "message"), [row[1:] for row in MISBEHAVIOUR], ids=[row[0] for row in MISBEHAVIOUR]
)
def test_an_api_that_misbehaves_is_an_error_in_time(
    api: lab.Api, tmp_path: Path, answer: Answer, message: str
) -> None:
    api.behaviour.answer = answer
    client = _client(api, deadline=0.5, silence=0.3)
    with pytest.raises(NotListed) as caught:
        obtain(NORD, Wish(), ask=client.ask, cache_dir=tmp_path, now=NOW)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "message"), [row[1:] for row in MISBEHAVIOUR], ids=[row[0] for row in MISBEHAVIOUR]
)
def test_the_kept_copy_serves_when_the_api_does_not(
    api: lab.Api, tmp_path: Path, answer: Answer, message: str
) -> None:
    """With its age told; and a copy is never replaced by a worse one."""
    first = _obtain(api, Wish(), tmp_path)
    assert (first.age, first.notices) == (0.0, ())
    before = (tmp_path / "nordvpn.json").read_bytes()
    api.behaviour.answer = answer
    client = _client(api, deadline=0.5, silence=0.3)
    again = obtain(NORD, Wish(random_top=3), ask=client.ask, cache_dir=tmp_path, now=NOW + 7200)
    assert again.listing == first.listing
    assert again.age == 7200
    (notice,) = again.notices
    assert message in notice
    assert notice.endswith("servers are chosen from the list of 2 h ago")
    assert (tmp_path / "nordvpn.json").read_bytes() == before


def test_a_server_of_another_shape_is_passed_over(api: lab.Api, tmp_path: Path) -> None:
    """A field that changes its kind at one server does not take all others away."""
    strange = json.loads(json.dumps(lab.SERVERS[0]))
    strange["locations"] = None
    renamed = json.loads(json.dumps(lab.SERVERS[1]))
    renamed["hostname"] = "evil.example\nup x"
    api.behaviour.servers = (strange, renamed, lab.SERVERS[2])
    assert _labels(api, Wish(), tmp_path) == ["nl742"]


def test_a_copy_for_other_places_is_none(api: lab.Api, tmp_path: Path) -> None:
    _obtain(api, Wish(countries=("DE",)), tmp_path)
    with pytest.raises(NotListed, match="it was made for other places or another technology"):
        _obtain(None, Wish(countries=("NL",)), tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"{}", b"[" * 100_000, b'{"format": 2}'])
def test_without_api_and_copy_both_are_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "nordvpn.json").write_bytes(content)
    with pytest.raises(NotListed, match=r"api.nordvpn.com is not reachable; and .*nordvpn.json: "):
        _obtain(None, Wish(), tmp_path)


def test_a_cache_that_cannot_be_written_is_a_notice(api: lab.Api, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    obtained = _obtain(api, Wish(), tmp_path / "file")
    assert obtained.listing.servers
    (notice,) = obtained.notices
    assert "the list of servers can't be kept (" in notice


def test_nothing_is_left_beside_the_copy(api: lab.Api, tmp_path: Path) -> None:
    _obtain(api, Wish(), tmp_path / "cache")
    _obtain(api, Wish(), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["nordvpn.json"]


def test_another_certificate_is_not_believed(api: lab.Api) -> None:
    """Neither one that nobody signed, nor one for another name."""
    unsigned = Api(lab.HOST, ip_address("127.0.0.1"), api.port)
    with pytest.raises(NotListed, match="its certificate is not valid: self"):
        unsigned.ask("/v1/servers/countries")
    context = ssl.create_default_context(cafile=str(api.authority))
    other = Api("other.example", ip_address("127.0.0.1"), api.port, context)
    with pytest.raises(NotListed, match="its certificate is not valid: Hostname mismatch"):
        other.ask("/v1/servers/countries")


def test_nobody_listening_is_said(api: lab.Api) -> None:
    port = api.port
    api.close()
    with pytest.raises(NotListed, match=r"https://api.nordvpn.com/x: Connection refused"):
        Api(lab.HOST, ip_address("127.0.0.1"), port).ask("/x?filter=1")


def test_a_copy_is_read_back_as_it_was(api: lab.Api, tmp_path: Path) -> None:
    listing = _obtain(api, Wish(countries=("DE",), groups=("P2P", "11")), tmp_path).listing
    assert unkept(kept(listing, NOW)) == (listing, NOW)


def test_the_client_knows_the_server_by_its_name() -> None:
    """NordVPN's own directives, through the same door as any other file."""
    remote = Remote("192.0.2.13", 443, ("tcp",), "nl742.nordvpn.com")
    endpoint = Endpoint(ip_address("192.0.2.13"), 443, ("tcp",))
    launch = NORD.launch(
        ("service-user", "hunter2"),
        remote,
        endpoint,
        device="tun0",
        directory=Path("/run/ocgate/tunnel"),
        hook=Path("/run/ocgate/hooks/tunnel"),
    )
    text = launch.files["openvpn.conf"].decode()
    assert "verify-x509-name nl742.nordvpn.com name\n" in text
    assert "remote-cert-tls server\n" in text
    assert "proto tcp4-client\nremote 192.0.2.13 443\n" in text
    assert "<tls-auth>\n-----BEGIN OpenVPN Static key V1-----\n" in text
    assert launch.files["login"] == b"service-user\nhunter2\n"
    assert "hunter2" not in " ".join(launch.argv)


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_ages_are_told_in_the_largest_unit(seconds: float, told: str) -> None:
    assert told_age(seconds) == told


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "hostname", "station", "load", "locations", "country"]),
            inner,
        )
    ),
    max_leaves=15,
)


@given(_JSON)
def test_any_answer_is_servers_or_refused(answer: object) -> None:
    """Law: nothing but NotListed, whatever the API says."""
    with contextlib.suppress(NotListed):
        parsed(json.dumps([answer, {"status": "online"}]).encode())


def test_a_number_without_end_is_another_shape() -> None:
    """JSON's 1e999 is Python's infinity, which is no int."""
    endless = json.dumps([lab.SERVERS[0] | {"load": float("inf")}, lab.SERVERS[1]]).encode()
    assert len(parsed(endless)) == 1

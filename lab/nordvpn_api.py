"""NordVPN's public API, played by a local HTTPS server with answers of the recorded shape.

The shape is that of answers of api.nordvpn.com that people published in 2022 to 2026; names,
numbers and addresses are made up. Filters work as far as ocgate uses them.
"""

from __future__ import annotations

import datetime
import json
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

HOST = "api.nordvpn.com"

Json = dict[str, Any]

# Name, code and id of countries; name, id and dns_name of their cities.
_PLACES: tuple[tuple[int, str, str, tuple[tuple[int, str, str], ...]], ...] = (
    (81, "Germany", "DE", ((2181458, "Berlin", "berlin"), (2215709, "Frankfurt", "frankfurt"))),
    (153, "Netherlands", "NL", ((6076868, "Amsterdam", "amsterdam"),)),
    (227, "United Kingdom", "GB", ((2989907, "London", "london"),)),
    (228, "United States", "US", ((8971718, "New York", "new-york"),)),
)
_GROUPS = (
    (11, "Standard VPN servers", "legacy_standard"),
    (15, "P2P", "legacy_p2p"),
    (19, "Europe", "europe"),
    (9, "Dedicated IP", "legacy_dedicated_ip"),
)
_TECHNOLOGIES = ((1, "IKEv2/IPSec", "ikev2"), (3, "OpenVPN UDP", "openvpn_udp"),
                 (5, "OpenVPN TCP", "openvpn_tcp"), (35, "Wireguard", "wireguard_udp"))  # fmt: skip
_MADE = {"created_at": "2022-11-17 11:34:41", "updated_at": "2024-06-07 05:43:26"}


def countries() -> list[Json]:
    """GET /v1/servers/countries."""
    return [
        {"id": number, "name": name, "code": code, "serverCount": 2, "cities": [
            {"id": city, "name": called, "latitude": 1.5, "longitude": 2.5, "dns_name": dns,
             "hub_score": 0, "serverCount": 1} for city, called, dns in cities]}
        for number, name, code, cities in _PLACES
    ]  # fmt: skip


def groups() -> list[Json]:
    """GET /v1/servers/groups."""
    kind = {"id": 3, "title": "Legacy category", "identifier": "legacy_group_category", **_MADE}
    return [
        {"id": number, "title": title, "identifier": word, **_MADE, "type": kind}
        for number, title, word in _GROUPS
    ]


def server(
    hostname: str,
    station: str,
    load: int,
    country: str,
    city: str,
    *,
    in_groups: Sequence[str] = ("legacy_standard",),
    offline: Sequence[str] = (),
    status: str = "online",
) -> Json:
    """One server of GET /v1/servers/recommendations; `country` and `city` as in `countries`."""
    number, name, code, cities = next(place for place in _PLACES if place[2] == country)
    town, called, dns = next(each for each in cities if each[1] == city)
    place = {"id": town, "name": called, "dns_name": dns, "hub_score": 0}
    technologies = [
        {"id": tech, "name": title, "identifier": word, **_MADE, "metadata": [], "pivot": {
            "technology_id": tech, "server_id": 950346,
            "status": "offline" if word in offline else "online"}}
        for tech, title, word in _TECHNOLOGIES
    ]  # fmt: skip
    return {
        "id": 950346, **_MADE, "name": f"{name} #1", "station": station, "ipv6_station": "",
        "hostname": hostname, "load": load, "status": status, "type": "physical",
        "locations": [{"id": 113, **_MADE, "latitude": 40.4, "longitude": -3.6,
                       "country": {"id": number, "name": name, "code": code, "city": place}}],
        "services": [{"id": 1, "name": "VPN", "identifier": "vpn", **_MADE}],
        "technologies": technologies,
        "groups": [each for each in groups() if each["identifier"] in in_groups],
        "specifications": [{"id": 8, "title": "Version", "identifier": "version",
                            "values": [{"id": 257, "value": "2.1.0"}]}],
        "ips": [{"id": 723986, **_MADE, "server_id": 950346, "ip_id": 85356, "type": "entry",
                 "ip": {"id": 85356, "ip": station, "version": 4}}],
    }  # fmt: skip


SERVERS = (
    server("de1001.nordvpn.com", "192.0.2.11", 40, "DE", "Berlin"),
    server("de1002.nordvpn.com", "192.0.2.12", 10, "DE", "Frankfurt"),
    server("nl742.nordvpn.com", "192.0.2.13", 25, "NL", "Amsterdam",
           in_groups=("legacy_standard", "legacy_p2p", "europe")),
    server("uk2567.nordvpn.com", "192.0.2.14", 5, "GB", "London", offline=("openvpn_udp",)),
    server("us9000.nordvpn.com", "192.0.2.15", 1, "US", "New York", status="maintenance"),
    server("us9001.nordvpn.com", "192.0.2.16", 60, "US", "New York"),
)  # fmt: skip


def recommended(servers: Sequence[Json], query: str) -> list[Json]:
    """The servers that pass the filters of a query, as the API sorts them out."""
    asked = {name: values[0] for name, values in parse_qs(query).items()}
    country = asked.get("filters[country_id]")
    group = asked.get("filters[servers_groups][identifier]")
    return [
        each
        for each in servers
        if (country is None or str(each["locations"][0]["country"]["id"]) == country)
        and (group is None or group in [held["identifier"] for held in each["groups"]])
    ][: int(asked.get("limit", "100"))]


@dataclass
class Behaviour:
    """How the API answers; a test changes it while it runs. asked: the paths so far.

    answer: in place of the recorded one: writes to the handler what it likes.
    """

    servers: Sequence[Json] = SERVERS
    answer: Callable[[BaseHTTPRequestHandler], None] | None = None
    asked: list[str] = field(default_factory=list)


class Api:
    """The running server; ends with `close`. `authority`: the file that its certificate needs."""

    def __init__(self, directory: Path, address: str = "127.0.0.1", port: int = 0) -> None:
        self.behaviour = Behaviour()
        self.authority = directory / "api.pem"
        _write_certificate(self.authority, directory / "api-key.pem", HOST)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.authority, directory / "api-key.pem")
        self._server = ThreadingHTTPServer((address, port), _handler(self.behaviour))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port: int = self._server.server_address[1]
        # How often it looks whether it should end; its own half second is every test's.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def _handler(behaviour: Behaviour) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """One request."""

        def do_GET(self) -> None:
            behaviour.asked.append(self.path)
            if behaviour.answer:
                behaviour.answer(self)
            else:
                self._recorded()

        def _recorded(self) -> None:
            parts = urlsplit(self.path)
            answers: dict[str, Callable[[], list[Json]]] = {
                "/v1/servers/countries": countries,
                "/v1/servers/groups": groups,
                "/v1/servers/recommendations": lambda: recommended(behaviour.servers, parts.query),
            }
            found = answers.get(parts.path)
            body = json.dumps(found() if found else {"message": "Not Found"}).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """A test's output is no place for it."""

    return Handler


def _write_certificate(certificate: Path, key: Path, host: str) -> None:
    """A certificate for a name, signed by itself, valid for a day; and its key, mode 0600."""
    private = ec.generate_private_key(ec.SECP256R1())
    key.touch(mode=0o600)
    key.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    now = datetime.datetime.now(datetime.UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    built = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    certificate.write_bytes(built.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM))

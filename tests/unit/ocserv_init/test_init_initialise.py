"""First start: when a config dir is filled, when it must not be, and what it then holds."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest
from pydantic import SecretStr

from ocgate.config import Ipv6Nat, Settings, load
from ocgate.config.choices import Forwarding
from ocgate.errors import ConfigurationError, OcgateError
from ocgate.ocserv import initial_conf, initialise, packaged, publish, users
from ocgate.ocserv.initialise import HostFacts, State

FACTS = HostFacts(
    hostname="box",
    fqdn="box.example.org",
    addresses=(
        IPv4Address("127.0.0.1"),
        IPv4Address("192.0.2.7"),
        IPv6Address("fe80::1"),
        IPv6Address("2001:db8::7"),
    ),
    preferred=IPv4Address("192.0.2.7"),
)
GENERATED = {"ocgate.toml", "server-key.pem", "server-cert.pem", "ocpasswd", "ocserv.conf"}

needs_ocserv = pytest.mark.skipif(not shutil.which("ocserv"), reason="ocserv is not installed")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "etc"


@dataclass
class Package:
    """A package whose sample is `content`."""

    content: bytes = b"# sample\n"


@pytest.fixture
def sample(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packaged sample in place, as dpkg recorded it."""
    import hashlib

    directory.mkdir()
    path = directory / "ocserv.conf"
    path.write_bytes(Package.content)
    digest = hashlib.md5(Package.content, usedforsecurity=False).hexdigest()
    monkeypatch.setattr(packaged, "_conffiles", lambda: {"ocserv.conf": digest})
    return path


def make(directory: Path, **wishes: object) -> initialise.Created:
    return initialise.create(Settings(config_dir=directory, **wishes), FACTS)  # type: ignore[arg-type]


def listing(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()}


def test_missing_and_empty_directories_are_to_be_initialised(directory: Path) -> None:
    """A volume's lost+found, empty directories and our own settings are no configuration."""
    assert initialise.needed(directory).state is State.EMPTY
    (directory / "lost+found").mkdir(parents=True)
    (directory / "pools").mkdir()
    (directory / "ocgate.toml").write_text("")
    (directory / f"{publish.STAGING_PREFIX}abc").mkdir()
    assert initialise.needed(directory).to_be_initialised


def test_an_ocserv_conf_is_the_operators(directory: Path) -> None:
    """Nothing is made beside it."""
    directory.mkdir()
    (directory / "ocserv.conf").write_text("device = vpns\n")
    assert initialise.needed(directory).state is State.COMPLETE
    with pytest.raises(ConfigurationError):
        make(directory)
    assert listing(directory) == {"ocserv.conf"}


def test_partly_filled_names_what_is_missing(directory: Path) -> None:
    """Somebody's certificate without ocserv.conf: no guess, exit 2, nothing changed."""
    directory.mkdir()
    (directory / "server-cert.pem").write_text("x")
    verdict = initialise.needed(directory)
    assert verdict.state is State.PARTIAL
    words = str(verdict.problems[0])
    assert "server-cert.pem; not there: ocserv.conf, ocpasswd, server-key.pem" in words
    with pytest.raises(ConfigurationError) as caught:
        make(directory)
    assert caught.value.exit_code == 2
    assert listing(directory) == {"server-cert.pem"}


def test_sample_beside_own_files_is_partly_filled(sample: Path) -> None:
    """The sample must not serve with the operator's users."""
    (sample.parent / "ocpasswd").write_text("x")
    verdict = initialise.needed(sample.parent)
    assert verdict.state is State.PARTIAL
    assert "unchanged sample" in str(verdict.problems[0])


def test_directory_that_docker_made_for_a_missing_file(directory: Path) -> None:
    """`-v ./ocserv.conf:…` without the file on the host."""
    (directory / "ocserv.conf").mkdir(parents=True)
    with pytest.raises(ConfigurationError, match="single-file mount"):
        initialise.needed(directory)


@needs_ocserv
def test_packaged_sample_is_put_aside(sample: Path) -> None:
    """It is kept under another name, and then the directory is complete."""
    verdict = initialise.needed(sample.parent)
    assert verdict.state is State.PRISTINE
    created = make(sample.parent)
    assert created.aside == (sample.parent / "ocserv.conf.packaged",)
    assert created.aside[0].read_bytes() == Package.content
    assert initialise.needed(sample.parent).state is State.COMPLETE


def test_edited_sample_is_the_operators(sample: Path) -> None:
    """One byte more and it is a configuration."""
    sample.write_bytes(Package.content + b"\n")
    assert initialise.needed(sample.parent).state is State.COMPLETE


@needs_ocserv
@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="no dpkg")
def test_the_installed_package_is_recognised() -> None:
    """What dpkg says of the sample is understood."""
    assert "ocserv.conf" in packaged._conffiles()


@needs_ocserv
def test_fresh_installation(directory: Path) -> None:
    """All files, secrets for root alone, one user whose password is on the card once."""
    created = make(directory)
    assert listing(directory) == GENERATED
    modes = {path.name: path.stat().st_mode & 0o777 for path in created.files}
    assert modes["server-key.pem"] == modes["ocpasswd"] == 0o600
    (user,) = users.read(directory / "ocpasswd")
    assert (user.name, user.groups) == ("vpn", ())
    card = created.card
    assert card.url == "https://192.0.2.7"
    assert card.password is not None and card.password not in repr(created)
    everything = b"".join(path.read_bytes() for path in created.files)
    assert card.password.encode() not in everything


@needs_ocserv
def test_a_password_of_the_operators_is_not_repeated(directory: Path) -> None:
    """It is hashed, and the openconnect line asks for it."""
    created = make(directory, user="alice", password=SecretStr("correct horse"))
    assert created.card.password is None
    assert created.card.command.startswith("sudo openconnect --user=alice --servercert=pin-sha256:")
    assert (directory / "ocpasswd").read_text().startswith("alice:*:$5$")


@needs_ocserv
def test_settings_of_the_operators_stay(directory: Path) -> None:
    """An ocgate.toml that was there first is kept and used."""
    directory.mkdir()
    (directory / "ocgate.toml").write_text("vpn_subnet = '10.99.0.0/16'\n")
    make(directory, vpn_subnet=(IPv4Network("10.99.0.0/16"),))
    assert (directory / "ocgate.toml").read_text() == "vpn_subnet = '10.99.0.0/16'\n"
    assert (
        "ipv4-network = 10.99.0.0\nipv4-netmask = 255.255.0.0"
        in (directory / "ocserv.conf").read_text()
    )


@needs_ocserv
def test_generated_settings_are_ours(directory: Path) -> None:
    """ocgate.toml loads, without a problem, and closes the IPv6 leak of dual-stack clients."""
    make(directory)
    settings = load({"OCGATE_CONFIG_DIR": str(directory)}).settings
    assert settings.ipv6_nat is Ipv6Nat.AUTO
    assert settings.ipv6_sink
    assert settings.gateway_mode  # all three layers of the guard
    assert str(settings.exit4) == "direct"
    assert settings.exit6 is None
    assert settings.forwarding is Forwarding.AUTO


@needs_ocserv
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"VPN_GATEWAY": "nordvpn"}, ("nordvpn", "block")),
        ({"VPN_GATEWAY": "172.28.0.2", "VPN_GATEWAY6": "direct"}, ("172.28.0.2", "direct")),
        ({"VPN_GATEWAY6": "fd00:28::2"}, ("direct", "fd00:28::2")),
        ({"VPN_GATEWAY": "block"}, ("block", "block")),
    ],
)
def test_a_gateway_of_the_first_start_stays_without_its_variable(
    directory: Path, given: dict[str, str], kept: tuple[str, str]
) -> None:
    """Who drops VPN_GATEWAY later does not send clients by this host unnoticed; who sets another
    one gets that."""
    where = {"OCGATE_CONFIG_DIR": str(directory)}
    asked = load({**where, **given}).settings
    initialise.create(asked, FACTS)
    for environ in (where, {**where, **given}):
        settings = load(environ).settings
        assert (str(settings.exit4), str(settings.exit6)) == kept
    assert str(load({**where, "VPN_GATEWAY": "nordvpn.example"}).settings.exit4) == (
        "nordvpn.example"
    )


@needs_ocserv
def test_two_layers_are_told_where_the_operators_settings_leave_the_third_out(
    directory: Path,
) -> None:
    """An ocgate.toml that was there first is not edited, so the card says what is missing."""
    directory.mkdir()
    (directory / "ocgate.toml").write_text("mss = 1360\n")
    said = " ".join(make(directory).card.notes)
    assert "two of the guard's three layers" in said
    assert 'vpn_gateway = "direct"' in said


@needs_ocserv
def test_nothing_is_told_where_all_three_stand(directory: Path) -> None:
    """Of a directory that was empty, and of settings that name an exit."""
    assert "layers" not in " ".join(make(directory).card.notes)
    for path in directory.iterdir():
        path.unlink()
    (directory / "ocgate.toml").write_text('vpn_gateway = "direct"\n')
    settings = load({"OCGATE_CONFIG_DIR": str(directory)}).settings
    assert "layers" not in " ".join(initialise.create(settings, FACTS).card.notes)


@needs_ocserv
def test_a_machine_in_a_namespace_of_its_own_leaves_others_forwarding(directory: Path) -> None:
    """LXC and the like look like a container, and docker may forward there."""
    initialise.create(
        load({"OCGATE_CONFIG_DIR": str(directory)}).settings, replace(FACTS, machine=True)
    )
    settings = load({"OCGATE_CONFIG_DIR": str(directory)}).settings
    assert settings.forwarding is Forwarding.SHARED


@needs_ocserv
def test_generated_configuration_passes_ocserv(directory: Path) -> None:
    """`ocserv -t`, with the one line that ocgate renders and ocserv insists on."""
    make(directory)
    effective = directory / "effective.conf"
    text = (directory / "ocserv.conf").read_text()
    effective.write_text(f"socket-file = {directory}/sock\n{text}")
    command = ["ocserv", "-t", "-c", str(effective)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
    assert complaints == []


@needs_ocserv
def test_two_subnets_are_refused_before_anything_is_made(directory: Path) -> None:
    """ocserv takes one for its main host."""
    subnets = (IPv4Network("10.1.0.0/16"), IPv4Network("10.2.0.0/16"))
    with pytest.raises(ConfigurationError, match="VPN_SUBNET"):
        make(directory, vpn_subnet=subnets)
    assert not directory.exists()


@needs_ocserv
def test_a_name_that_ocserv_would_cut_is_refused(directory: Path) -> None:
    """OCGATE_USER of 64 characters could never log in."""
    with pytest.raises(ConfigurationError, match="OCGATE_USER"):
        unchecked = Settings.model_construct(config_dir=directory, user="x" * 64)
        initialise.create(unchecked, FACTS)
    assert not directory.exists()


def test_certificate_names() -> None:
    """URL first, then names, then every address that others can reach."""
    assert initialise.names("https://vpn.example.net:8443/x", FACTS) == (
        "vpn.example.net",
        "box.example.org",
        IPv4Address("192.0.2.7"),
        "box",
        IPv6Address("2001:db8::7"),
    )
    assert initialise.names("https://[2001:db8::9]", HostFacts()) == (IPv6Address("2001:db8::9"),)
    assert initialise.names(None, HostFacts()) == ("localhost",)


@pytest.mark.parametrize(
    ("url", "facts", "port", "expected"),
    [
        ("https://vpn.example.org:8443", FACTS, 443, "https://vpn.example.org:8443"),
        (None, FACTS, 443, "https://192.0.2.7"),
        (None, FACTS, 4443, "https://192.0.2.7:4443"),
        (None, HostFacts(addresses=(IPv6Address("2001:db8::7"),)), 443, "https://[2001:db8::7]"),
        (None, HostFacts(hostname="box"), 443, "https://box"),
    ],
)
def test_url(url: str | None, facts: HostFacts, port: int, expected: str) -> None:
    """The operator's own, else the default route's address."""
    assert initialise.url_of(url, facts, port=port) == expected


@pytest.mark.parametrize(("prefix", "clients"), [(24, 126), (30, 1), (16, 8192)])
def test_clients_fit_the_subnet(prefix: int, clients: int) -> None:
    """Half of it, so that ocserv's 16 draws find a free address."""
    subnet = IPv4Network(f"10.0.0.0/{prefix}")
    assert initial_conf.Choices(Path("/etc/ocserv"), subnet=subnet).max_clients == clients


def test_all_or_nothing(directory: Path) -> None:
    """A name that is taken undoes everything, and what was there stays."""
    directory.mkdir()
    (directory / "b").write_text("theirs")
    (directory / "old").write_text("sample")
    files = [publish.NewFile(name, b"ours", 0o600) for name in ("a", "b")]
    with pytest.raises(OcgateError, match="nothing was left behind"):
        publish.publish(directory, files, aside={"old": "old.packaged"})
    assert listing(directory) == {"b", "old"}
    assert (directory / "b").read_text() == "theirs"


def test_directories_are_undone_too(tmp_path: Path) -> None:
    """A directory that we made goes when the rest fails."""
    files = [publish.NewFile("a", b"", 0o600), publish.NewFile("x/y", b"", 0o600)]
    with pytest.raises(OcgateError):
        publish.publish(tmp_path / "new" / "etc", files, aside={})
    assert listing(tmp_path) == set()


def test_without_hard_links(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some volumes know none; the files are copied then, never over others."""

    def refuse(_self: Path, _target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    publish.publish(directory, [publish.NewFile("a", b"ours", 0o640)], aside={})
    assert (directory / "a").read_bytes() == b"ours"
    assert (directory / "a").stat().st_mode & 0o777 == 0o640
    with pytest.raises(OcgateError):
        publish.publish(directory, [publish.NewFile("a", b"new", 0o640)], aside={})
    assert (directory / "a").read_bytes() == b"ours"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_read_only_directory_says_so(directory: Path) -> None:
    """An empty volume that is mounted read-only."""
    import sys

    directory.mkdir()
    code = (
        "import sys; from pathlib import Path; from ocgate.ocserv.publish import publish, NewFile\n"
        "publish(Path(sys.argv[1]), [NewFile('a', b'', 0o600)], aside={})"
    )
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", str(directory), sys.executable]
    done = subprocess.run([*command, code], capture_output=True, text=True, check=False)
    assert "read-only mount" in done.stderr

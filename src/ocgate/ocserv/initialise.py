"""First start: everything that a server needs, made where the config dir holds nothing. An edge.

`needed` looks and decides, `create` makes. What the operator has put there is never touched, and
a directory that is only partly filled is an error that names what is missing: guessing there could
mean serving with somebody else's idea of the configuration.
"""

from __future__ import annotations

import grp
import pwd
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from ocgate.errors import ConfigurationError, MissingRequirement, Problem
from ocgate.ocserv import certificate, initial_conf, packaged, users
from ocgate.ocserv.connect_card import Card
from ocgate.ocserv.initial_conf import CERTIFICATE, CONF, KEY, PASSWD, SETTINGS, Choices
from ocgate.ocserv.passwords import hash_password, random_password
from ocgate.ocserv.publish import STAGING_PREFIX, NewFile, publish

Address = IPv4Address | IPv6Address

# What is there without anybody having configured a thing: a mounted volume's own directory. Our
# settings file may come first, since it is how one says what to initialise with.
_NOT_A_CONFIGURATION = {"lost+found", SETTINGS}

_ASIDE_SUFFIX = ".packaged"
DEFAULT_PORT = 443  # https
_WORKER_ACCOUNTS = ("ocserv", "nobody")
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")


class State(Enum):
    """What `needed` found."""

    EMPTY = "empty"
    """Nothing, or no directory at all: to be initialised."""
    PRISTINE = "pristine"
    """Only the distribution's own unchanged sample: to be initialised, the sample put aside."""
    COMPLETE = "complete"
    """The operator's ocserv.conf: used as it is."""
    PARTIAL = "partial"
    """Some of the operator's files, but no ocserv.conf: an error."""


@dataclass(frozen=True)
class Verdict:
    """state; packaged: samples to put aside; reasons: sentences that say why, for people."""

    state: State
    reasons: tuple[str, ...]
    packaged: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def to_be_initialised(self) -> bool:
        """Whether `create` may run."""
        return self.state in (State.EMPTY, State.PRISTINE)


@dataclass(frozen=True)
class HostFacts:
    """What is known of this machine.

    hostname, fqdn: as the system has them, '' if unknown.
    addresses:      of its interfaces, both families; loopback and link-local ones are ignored.
    ipv6:           whether tunnels of this machine can carry IPv6.
    machine:        whether it is a whole machine in a network namespace of its own (LXC, nspawn),
                    where others may forward, too.
    preferred:      the address that clients probably reach: the default route's interface's.
    """

    hostname: str = ""
    fqdn: str = ""
    addresses: tuple[Address, ...] = ()
    preferred: Address | None = None
    ipv6: bool = True
    machine: bool = False


class Secret(Protocol):
    """A value that does not show itself (pydantic's SecretStr)."""

    def get_secret_value(self) -> str: ...


class Wishes(Protocol):
    """The settings that count here (`config.model.Settings` has them)."""

    @property
    def config_dir(self) -> Path: ...
    @property
    def vpn_subnet(self) -> tuple[IPv4Network, ...] | None: ...
    @property
    def vpn_if(self) -> str: ...
    @property
    def ipv6_forward(self) -> bool: ...
    @property
    def ipv6_nat(self) -> str: ...
    @property
    def vpn_gateway(self) -> object | None: ...
    @property
    def vpn_gateway6(self) -> object | None: ...
    @property
    def url(self) -> str | None: ...
    @property
    def user(self) -> str: ...
    @property
    def password(self) -> Secret | None: ...


@dataclass(frozen=True)
class Created:
    """What `create` made. files: paths, in the order of their making; aside: new names."""

    card: Card
    files: tuple[Path, ...]
    aside: tuple[Path, ...]


def needed(config_dir: Path) -> Verdict:
    """What the directory holds and so what to do; changes nothing, raises `ConfigurationError`."""
    if not config_dir.exists():
        return Verdict(State.EMPTY, (f"{config_dir} does not exist",))
    if not config_dir.is_dir():
        raise ConfigurationError([_no_directory(config_dir)])
    if (config_dir / CONF).is_dir():
        raise ConfigurationError([_directory_for_file(config_dir / CONF)])
    present = _present(config_dir)
    samples = tuple(sorted(present & packaged.unchanged(config_dir)))
    return _judge(config_dir, tuple(sorted(present.difference(samples))), samples)


def create(settings: Wishes, facts: HostFacts) -> Created:
    """Key, certificate, ocserv.conf, ocgate.toml and the first user: all of them or none.

    Raises `ConfigurationError` if the directory is the operator's or a setting can't be used,
    `MissingRequirement` without ocpasswd, `OcgateError` if the files can't be written.
    """
    directory = settings.config_dir
    verdict = needed(directory)
    if not verdict.to_be_initialised:
        raise ConfigurationError(verdict.problems or [_is_the_operators(directory)])
    _validate(settings)
    password, chosen = _password(settings)
    identity = certificate.create(names(settings.url, facts))
    user = users.entry(settings.user, (), hash_password(password))
    files = _files(settings, facts, identity, user)
    aside = {name: _free_name(directory, name) for name in verdict.packaged}
    notes = _notes(settings)  # before our own ocgate.toml is there
    publish(directory, files, aside=aside)
    shown = None if chosen else password
    card = Card(url_of(settings.url, facts), settings.user, shown, identity.pin, notes)
    made = tuple(directory / file.name for file in files)
    return Created(card, made, tuple(directory / name for name in aside.values()))


def names(url: str | None, facts: HostFacts) -> tuple[certificate.Name, ...]:
    """Everything that clients may call this server by, the best one first; at least one."""
    hosts = [_host(url)] if url else []
    preferred = [facts.preferred] if facts.preferred else []
    local = [name for name in (facts.fqdn, facts.hostname) if _HOST_NAME.fullmatch(name)]
    dotted = [name for name in local if "." in name]
    reachable = [address for address in facts.addresses if _is_reachable(address)]
    found = dict.fromkeys([*hosts, *dotted, *preferred, *local, *reachable])
    return tuple(found) or ("localhost",)


def url_of(url: str | None, facts: HostFacts, *, port: int = DEFAULT_PORT) -> str:
    """What clients enter: the operator's URL, else the address that they probably reach.

    port: where ocserv listens; it is left out where it is https's own.
    """
    if url:
        return url
    host = facts.preferred or next(filter(_is_reachable, facts.addresses), None)
    name = str(host) if host else facts.fqdn or facts.hostname or "localhost"
    bracketed = f"[{name}]" if host and host.version == 6 else name
    return f"https://{bracketed}" + ("" if port == DEFAULT_PORT else f":{port}")


def _present(config_dir: Path) -> set[str]:
    """Names that count: empty directories and what an interrupted start left do not."""
    return {
        entry.name
        for entry in config_dir.iterdir()
        if entry.name not in _NOT_A_CONFIGURATION
        and not entry.name.startswith(STAGING_PREFIX)
        and not entry.name.endswith(_ASIDE_SUFFIX)
        and not (entry.is_dir() and not any(entry.iterdir()))
    }


def _judge(directory: Path, theirs: tuple[str, ...], samples: tuple[str, ...]) -> Verdict:
    if CONF in theirs:
        return Verdict(State.COMPLETE, (f"{directory / CONF} is there",))
    if theirs:
        problem = _partly_filled(directory, theirs, samples)
        return Verdict(State.PARTIAL, (str(problem),), samples, (problem,))
    if samples:
        what = ", ".join(samples)
        reason = f"{directory} holds nothing but {what} as the package installed it"
        return Verdict(State.PRISTINE, (reason,), samples)
    return Verdict(State.EMPTY, (f"{directory} is empty",))


def _partly_filled(directory: Path, theirs: tuple[str, ...], samples: tuple[str, ...]) -> Problem:
    missing = [name for name in (CONF, PASSWD, CERTIFICATE, KEY) if name not in theirs]
    sample = f" ({CONF} is the package's unchanged sample)" if CONF in samples else ""
    return Problem(
        source=str(directory),
        line=0,
        key=CONF,
        got=None,
        expected=f"a configuration beside your {', '.join(theirs)}; not there: "
        f"{', '.join(missing)}{sample}",
        remedy=f"Put your {CONF} there; or, to have everything made, move your files away and "
        "start again",
    )


def _no_directory(path: Path) -> Problem:
    return Problem("environment", 0, "OCGATE_CONFIG_DIR", str(path), "a directory", "Name another")


def _directory_for_file(path: Path) -> Problem:
    remedy = (
        "Remove that directory; docker makes one where the file of a single-file mount "
        "(-v ./ocserv.conf:…) does not exist on the host"
    )
    return Problem(str(path), 0, CONF, "a directory", "a file", remedy)


def _is_the_operators(directory: Path) -> Problem:
    remedy = "Start it with `ocgate run`; to begin anew, move its files away"
    return Problem(str(directory), 0, CONF, None, "an empty directory to initialise", remedy)


def _validate(settings: Wishes) -> None:
    users.validate_name(settings.user, source="settings", key="OCGATE_USER")
    subnets = settings.vpn_subnet or ()
    if len(subnets) > 1:
        got = ", ".join(map(str, subnets))
        remedy = f"Set one; for several write your own {CONF} with [vhost:…] or per-group files"
        problem = Problem("settings", 0, "VPN_SUBNET", got, "one subnet to begin with", remedy)
        raise ConfigurationError([problem])


def _password(settings: Wishes) -> tuple[str, bool]:
    """The first user's password, and whether the operator chose it."""
    if settings.password is None:
        return random_password(), False
    return settings.password.get_secret_value(), True


def _files(
    settings: Wishes, facts: HostFacts, identity: certificate.Identity, user: bytes
) -> tuple[NewFile, ...]:
    """In the order of their making; ocserv.conf last, because with it the directory is complete."""
    choices = Choices(
        config_dir=settings.config_dir,
        subnet=(settings.vpn_subnet or (initial_conf.DEFAULT_SUBNET,))[0],
        device=settings.vpn_if.removesuffix("+"),
        run_as=_worker_account(),
    )
    # The settings may hold a password some day, so they are not for everyone either.
    own = NewFile(SETTINGS, _settings(settings, facts).encode(), 0o640)
    made = (
        NewFile(KEY, identity.key, 0o600),
        NewFile(CERTIFICATE, identity.certificate, 0o644),
        NewFile(PASSWD, user, 0o600),
        NewFile(CONF, initial_conf.ocserv_conf(choices).encode(), 0o644),
    )
    return made if (settings.config_dir / SETTINGS).exists() else (own, *made)


def _settings(settings: Wishes, facts: HostFacts) -> str:
    """ocgate.toml, without lines that the environment's values would contradict."""
    six = settings.vpn_gateway6
    lines = initial_conf.Lines(
        nat=facts.ipv6 and settings.ipv6_forward,
        sink=facts.ipv6 and settings.ipv6_nat != "1",
        gateway=str(settings.vpn_gateway or "direct"),
        gateway6=None if six is None else str(six),
        shared=facts.machine,
    )
    return initial_conf.ocgate_toml(lines)


def _notes(settings: Wishes) -> tuple[str, ...]:
    return (*_layers_note(settings), *(_URL_NOTE if not settings.url else ()))


_URL_NOTE = (
    "The URL is this machine's own address. Behind NAT or docker clients use the public one;",
    "OCGATE_URL=https://your.name would have put it here and into the certificate.",
)


def _layers_note(settings: Wishes) -> tuple[str, ...]:
    """Where the operator's own ocgate.toml leaves a layer of the guard out."""
    theirs = (settings.config_dir / SETTINGS).exists()
    if not theirs or settings.vpn_gateway is not None or settings.vpn_gateway6 is not None:
        return ()
    return (
        f"Your {SETTINGS} says no vpn_gateway, so two of the guard's three layers stand:",
        'vpn_gateway = "direct" there adds policy routing, which holds while nftables is flushed.',
    )


def _worker_account() -> tuple[str, str]:
    """User and group for ocserv's workers: the package's own, else nobody."""
    for name in _WORKER_ACCOUNTS:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, grp.getgrgid(account.pw_gid).gr_name
    raise MissingRequirement(
        f"no account for ocserv's workers: neither {' nor '.join(_WORKER_ACCOUNTS)} exists",
        hint="Install the package ocserv, which brings one",
    )


def _free_name(directory: Path, name: str) -> str:
    candidates: Iterable[str] = (
        f"{name}{number}{_ASIDE_SUFFIX}" for number in ("", *(f".{n}" for n in range(1, 1000)))
    )
    return next(free for free in candidates if not (directory / free).exists())


def _host(url: str) -> certificate.Name:
    host = urlsplit(url).hostname or url
    for kind in (IPv4Address, IPv6Address):
        try:
            return kind(host)
        except ValueError:
            continue
    return host.rstrip(".")


def _is_reachable(address: Address) -> bool:
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )

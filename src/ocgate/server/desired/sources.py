"""Everything the operator wrote, read once and kept as it was read.

The control plane plans from this snapshot, not from the files: a control plane that is restarted
after a crash must come back with what is in force, also when the files are being edited just then.
Only `run` and `reload` read the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

from ocgate.config.choices import Ipv6Nat
from ocgate.config.gateways import UpstreamKind
from ocgate.config.load import DEFAULT, Loaded, load
from ocgate.config.model import Settings
from ocgate.config.origin import Origin
from ocgate.errors import ConfigurationError, OcgateError, Problem
from ocgate.ocserv import files
from ocgate.ocserv.checks import check
from ocgate.ocserv.dryrun import version
from ocgate.ocserv.file_checks import check_files
from ocgate.ocserv.file_modes import writable
from ocgate.ocserv.ini_parser import BOM, Document, parse
from ocgate.ocserv.reading import Supplement, read_view
from ocgate.ocserv.release_report import Meaning, report
from ocgate.ocserv.releases import Release, parsed, shown
from ocgate.ocserv.sync import Synced, sync
from ocgate.ocserv.view import ScopeKind, ServerView
from ocgate.own_files import Staged, stage, write
from ocgate.runtime import log as logs

OCSERV_CONF = "ocserv.conf"
DEFAULT_CONFIG_DIR = Settings.model_fields["config_dir"].default
SNAPSHOT = "applied.json"
EGRESS = "egress.json"

# What must not outlive first start: the password went into ocpasswd, as a hash.
_SECRETS = {"password"}


@dataclass(frozen=True)
class Sources:
    """settings, with the place of each that was set; ocserv.conf; per-user and per-group files;
    release: of the ocserv that was asked when they were read; notices: words about settings
    that have no effect."""

    settings: Settings
    origins: Mapping[str, Origin]
    document: Document
    supplements: tuple[Supplement, ...]
    release: Release
    notices: tuple[str, ...] = ()

    @cached_property
    def view(self) -> ServerView:
        """ocserv.conf and the files it names, typed."""
        return read_view(self.document, self.supplements, release=self.release)

    @cached_property
    def synced(self) -> Synced:
        """What settings and ocserv.conf agree on."""
        return sync(self.view, self.settings, self.origins)

    @property
    def meanings(self) -> tuple[Meaning, ...]:
        """What the release of this ocserv means for this configuration, the gravest first."""
        return report(self.document, self.view, self.release)

    @property
    def wants_ipv6(self) -> bool:
        """Whether clients may ever be given IPv6 addresses."""
        settings = self.settings
        asked = self.wants_sink or settings.ipv6_nat is not Ipv6Nat.OFF
        exit6 = settings.exit6 if settings.gateway_mode else None
        by_gateway = exit6 is not None and exit6.kind is UpstreamKind.GATEWAY
        return asked or by_gateway or bool(self.view.networks6)

    @property
    def wants_sink(self) -> bool:
        """IPV6_SINK; unset it means yes where IPv4 goes by a gateway and IPv6 by nothing: a client
        that gets no IPv6 from the tunnel uses its own outside of it."""
        settings = self.settings
        if "IPV6_SINK" in self.origins or not settings.gateway_mode:
            return settings.ipv6_sink
        exit6 = settings.exit6
        blocked = exit6 is not None and exit6.kind is UpstreamKind.BLOCK
        return settings.ipv6_sink or blocked

    def explicit_now(self) -> frozenset[IPv4Network | IPv6Network]:
        """Addresses that per-user files hand out by name (explicit-ipv4, explicit-ipv6), as these
        files are now: the one thing that is read anew, as ocserv does at each login."""
        now = files.read_supplements(self.document, self.settings.config_dir, self.release)
        view = read_view(self.document, now, release=self.release)
        four = {IPv4Network(placed.value) for scope in view.scopes for placed in scope.explicit4}
        six = {IPv6Network(placed.value) for scope in view.scopes for placed in scope.explicit6}
        return frozenset({*four, *six})

    def origin(self, name: str) -> Origin:
        """Where the variable `name` was set."""
        return self.origins.get(name, DEFAULT)


def read(settled: Loaded) -> Sources:
    """Read ocserv.conf and what it names, and check all of it; raises ConfigurationError with
    every problem at once."""
    base = settled.settings.config_dir
    document = files.read_document(base / OCSERV_CONF)
    release = version()
    supplements = files.read_supplements(document, base, release)
    found = Sources(
        settled.settings, settled.origins, document, supplements, release, settled.notices
    )
    texts = [supplement.document for supplement in supplements]
    facts = files.observe(found.view, base)
    problems = [
        *check(document, texts, found.view, ipv6=found.wants_ipv6, release=release),
        *check_files(found.view, facts),
        *writable(found.view, facts, files.mode_of(base / OCSERV_CONF)),
        *found.synced.problems,
    ]
    if problems:
        raise ConfigurationError(problems)
    return found


def loaded(environ: Mapping[str, str]) -> Loaded:
    """The settings; where one that ocserv.conf has a word in can't be used, its problem says what
    ocserv.conf has, too: both places are the operator's to choose from."""
    try:
        return load(environ)
    except ConfigurationError as error:
        raise ConfigurationError(_with_other_place(error.problems, environ)) from None


def _with_other_place(problems: Iterable[Problem], environ: Mapping[str, str]) -> Iterator[Problem]:
    said = _said_by_ocserv_conf(environ)
    for problem in problems:
        other = said.get(problem.key)
        remedy = f"{problem.remedy}; {other}" if other else problem.remedy
        yield replace(problem, remedy=remedy)


def _said_by_ocserv_conf(environ: Mapping[str, str]) -> dict[str, str]:
    """Variable -> `PLACE says KEY = VALUE`, as far as the file can be read."""
    base = Path(environ.get("OCGATE_CONFIG_DIR", "").strip() or DEFAULT_CONFIG_DIR)
    try:
        view = read_view(files.read_document(base / OCSERV_CONF), release=version())
    except OcgateError:
        return {}
    found = {"VPN_SUBNET": view.networks4, "IPV6_SUBNET": view.networks6}
    said = {
        name: "; ".join(f"{net.place} says {net.key} = {net.value}" for net in nets)
        for name, nets in found.items()
    }
    if view.device:
        said["VPN_IF"] = f"{view.place('device')} says device = {view.device}"
    return said


def reread(environ: Mapping[str, str]) -> Sources:
    """As at start: settings, then ocserv.conf."""
    return read(loaded(environ))


def write_snapshot(run_dir: Path, sources: Sources) -> None:
    """Keep `sources` for a control plane that is restarted; 0600, without secrets."""
    stage_snapshot(run_dir, sources).put()


def stage_snapshot(run_dir: Path, sources: Sources) -> Staged:
    """The same, to be put in place when they are in force; raises OSError while nothing is."""
    kept = {
        "settings": sources.settings.model_dump(mode="json", exclude=_SECRETS),
        "origins": {name: [o.source, o.line] for name, o in sources.origins.items()},
        "ocserv": shown(sources.release),
        "conf": [sources.document.source, _text(sources.document)],
        "supplements": [
            [s.kind.value, s.document.source, _text(s.document)] for s in sources.supplements
        ],
    }
    return stage(run_dir / SNAPSHOT, json.dumps(kept).encode())


def read_snapshot(run_dir: Path) -> Sources:
    """What `write_snapshot` kept; raises OcgateError if nothing (usable) is there."""
    path = run_dir / SNAPSHOT
    try:
        kept: dict[str, Any] = json.loads(path.read_bytes())
        return Sources(
            settings=Settings.model_validate(kept["settings"]),
            origins={name: Origin(*place) for name, place in kept["origins"].items()},
            document=_document(*kept["conf"]),
            release=parsed(kept["ocserv"]),
            supplements=tuple(
                Supplement(ScopeKind(kind), _document(source, text))
                for kind, source, text in kept["supplements"]
            ),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OcgateError(
            f"{path}: not what `ocgate run` writes at start: {error}",
            hint="Restart ocgate",
        ) from None


def configure_log(run_dir: Path) -> None:
    """Log as the settings of the snapshot say, or as by default where there is none."""
    try:
        settings = read_snapshot(run_dir).settings
    except OcgateError:
        logs.configure("human", "info")
    else:
        logs.configure(settings.log_format, settings.log_level)


def _text(document: Document) -> str:
    """Bytes of any kind as JSON text; latin-1 maps each byte to one character and back. With the
    mark and the line ends that reading takes off, so that what they protect comes back as it is."""
    return (BOM + b"".join(line + b"\r\n" for line in document.lines)).decode("latin-1")


def _document(source: str, text: str) -> Document:
    return parse(text.encode("latin-1"), source)


def write_egress(run_dir: Path, failure: str | None) -> None:
    """Keep what the last probe that counted found, for a control plane that is restarted: it must
    be back in two seconds, and a probe that fails takes as long."""
    write(run_dir / EGRESS, json.dumps({"failure": failure}).encode())


def read_egress(run_dir: Path) -> str | None:
    """Why there was no IPv6 egress, None if there was; unknown counts as none."""
    try:
        failure = json.loads((run_dir / EGRESS).read_bytes())["failure"]
    except (OSError, ValueError, KeyError, TypeError):
        return "not probed yet"
    return None if failure is None else str(failure)

"""From what was written to `Settings`, or to every problem in it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from ocgate.config import gateway_settings
from ocgate.config.agreement import Contradiction
from ocgate.config.choices import Ipv6Nat
from ocgate.config.gateways import rule_prio
from ocgate.config.model import Settings
from ocgate.config.origin import ENVIRONMENT, Origin, Written
from ocgate.config.table import BY_NAME, SECRETS, SERVER, Line, Model, Table
from ocgate.config.unserved import UNSERVED
from ocgate.config.values import Fault, Rejected, written
from ocgate.errors import Problem

# The reference image's rules for bypass pools and for single users, with its defaults: the kernel
# looks at the lowest priority first.
_FOR_SOME = {"VPN_BYPASS_RULE_PRIO": 800, "VPN_GATEWAY_USER_RULE_PRIO": 900}

_EXITS = ("VPN_GATEWAY", "VPN_GATEWAY6")


def overlay(environment: Mapping[str, Written], file: Mapping[str, Written]) -> dict[str, Written]:
    """Both together; the environment wins, over a secret's `_FILE` variant too."""
    hidden = set(environment)
    for line in SECRETS:
        pair = {line.setting.name, f"{line.setting.name}_FILE"}
        hidden |= pair if pair & hidden else set()
    return {name: value for name, value in file.items() if name not in hidden} | dict(environment)


def validate(found: Mapping[str, Written]) -> tuple[Settings | None, list[Problem]]:
    """The settings, or all problems: of every value, and between those that are fine alone."""
    return validate_by(SERVER, found)


def validate_by(
    table: Table[Model], found: Mapping[str, Written], *, unread: Iterable[str] = ()
) -> tuple[Model | None, list[Problem]]:
    """As `validate`, by any role's table; `unread` are names that are known to be bad already."""
    by_name = table.by_name
    values = {by_name[name].field: found[name].text for name in found if name in by_name}
    settings, problems, bad = _try(table, values, found, without=unread)
    if not bad:
        return settings, problems
    # pydantic compares settings only when each is fine, so the fine ones are tried once more;
    # what then hangs on the default that stands in for a bad value is left out.
    fine = {field for field in values if table.by_field[field].setting.name not in bad}
    rest = {field: values[field] for field in fine}
    _, between, _ = _try(table, rest, found, without={*bad, *unread})
    return None, problems + between


def _try(
    table: Table[Model],
    values: Mapping[str, str],
    found: Mapping[str, Written],
    *,
    without: Iterable[str],
) -> tuple[Model | None, list[Problem], set[str]]:
    """Settings or problems, and the names of values that are bad alone."""
    try:
        return table.model.model_validate(values), [], set()
    except ValidationError as error:
        problems: list[Problem] = []
        bad: set[str] = set()
        for detail in error.errors(include_url=False, include_input=False):
            rejected = detail.get("ctx", {}).get("error")
            line = table.by_field[str(detail["loc"][0])] if detail["loc"] else None
            name = line.setting.name if line else ""
            bad |= {name} if name else set()
            problems += [
                _problem(fault, name, found)
                for fault in _faults(rejected, line)
                if not (isinstance(fault, Contradiction) and {*fault.names} & {*without})
            ]
        return None, problems, bad


def _faults(rejected: object, line: Line | None) -> tuple[Fault, ...]:
    """What a form said; should pydantic's own type check ever speak, the form's range."""
    if isinstance(rejected, Rejected) or line is None:
        return rejected.faults if isinstance(rejected, Rejected) else ()
    return (Fault(None, line.setting.form.accepts, "write a value of this kind"),)


def _problem(fault: Fault, name: str, found: Mapping[str, Written]) -> Problem:
    names = fault.names if isinstance(fault, Contradiction) else (name,)
    places = [found[each].origin for each in names if each in found]
    origin = places[0] if places else Origin(ENVIRONMENT)
    return origin.problem(names[0], fault.got, fault.expected, fault.remedy)


def refuse_unserved(found: Mapping[str, Written]) -> list[Problem]:
    """Variables that steer or guard packets and that this version does not serve."""
    return [
        at.origin.problem(
            name,
            at.text,
            f"{_inert(name)}, because {UNSERVED[name].about}",
            f"remove {name} only if all clients may leave by VPN_GATEWAY (by this host without it)",
        )
        for name, at in found.items()
        if name in UNSERVED and not _is_inert(name, at)
    ]


def refuse_misordered(found: Mapping[str, Written]) -> list[Problem]:
    """A rule for all clients before the places that were written for rules for some: it would hide
    them. Those written places are the defaults, as others are refused."""
    name = "VPN_GATEWAY_RULE_PRIO"
    at = found.get(name)
    if at is None or not {*_EXITS} & {*found}:
        return []
    try:
        prio = rule_prio(at.text.strip())
    except Rejected:
        return []  # validate reports it
    return [
        at.origin.problem(
            name,
            at.text,
            f"a priority greater than {other}={first}",
            f"write 1000, say, or remove {other}, which has no effect in this version",
        )
        for other, first in _FOR_SOME.items()
        if other in found and _is_inert(other, found[other]) and prio <= first
    ]


def notices(found: Mapping[str, Written], settings: Settings) -> tuple[str, ...]:
    """Settings that are accepted and have no effect, one sentence each, in the tables' order."""
    said = []
    subnet = found.get("IPV6_SUBNET")
    if subnet and settings.ipv6_nat is Ipv6Nat.OFF and not settings.ipv6_sink:
        said.append(
            f"{subnet.origin}: IPV6_SUBNET: with IPV6_NAT=0 and IPV6_SINK=0 clients get no address "
            "from it; it is only compared with ipv6-network in ocserv.conf"
        )
    said += [] if settings.gateway_mode else _without_gateway(found, settings)
    said += [] if settings.health_check_enabled else _without_health_check(found, settings)
    return tuple(said)


def _without_health_check(found: Mapping[str, Written], settings: Settings) -> list[str]:
    return [
        f"{found[name].origin}: {name}: has no effect without HEALTH_CHECK_ENABLED=1"
        for name, value in (
            ("HEALTH_CHECK_EGRESS", settings.health_check_egress),
            ("HEALTH_CHECK_URL", settings.health_check_url),
        )
        if name in found and value
    ]


def _without_gateway(found: Mapping[str, Written], settings: Settings) -> list[str]:
    """Settings of gateway mode without an exit; a default written out says nothing."""
    return [
        f"{found[name].origin}: {name}: has no effect without VPN_GATEWAY or VPN_GATEWAY6"
        for name, line in BY_NAME.items()
        if line.setting.group == gateway_settings.GROUP
        and name in found
        and written(getattr(settings, line.field)) != line.default
    ]


def _is_inert(name: str, at: Written) -> bool:
    return at.text.strip() in UNSERVED[name].inert


def _inert(name: str) -> str:
    inert = sorted(UNSERVED[name].inert)
    return f"{inert[0]} or unset" if inert else "unset"


def origins(found: Mapping[str, Written], table: Table[Any] = SERVER) -> dict[str, Origin]:
    """Where each setting was written, by the name of the setting; defaults are left out."""
    names = {line.setting.name: line.setting.file_name for line in table.lines}
    return {
        name: (found.get(name) or found[file_name or name]).origin
        for name, file_name in names.items()
        if name in found or file_name in found
    }

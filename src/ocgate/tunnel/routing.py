"""Routes and policy rules of the exit role: lock 2, which holds with the whole ruleset flushed.

Pure; `tunnel.killswitch`'s. In the order in which the kernel asks them, D being the tunnel's device
and T names.TUNNEL_TABLE, from names.TUNNEL_RULE_PRIO on, both families (or from before other
programs' rules on, which would be asked first):

    from D to NETWORK      main                     answers to local networks behind a router
    from D                 main, no default         answers to the docker networks
    from D                 blackhole                nothing else that comes by the tunnel
    forwarded              T                        D's default, or a blackhole
    own, to ENDPOINT …     main                     ... bootstrap resolvers, services; NETWORK
    own, to ENDPOINT …     unreachable              never through the tunnel that it carries
    own                    main, no default         on-link: docker networks, neighbours
    own                    T                        all else of this host, while the tunnel is up
    own                    unreachable
    all                    blackhole                whatever has become of the rules and of T

The default route of main is thus asked for nothing but the endpoint, the local networks and, while
it is open, the bootstrap. The reverse path filter asks the same rules for the way back: of what is
forwarded as if it came by the device that the packet leaves by, and of what is for this host as its
`own`. All of them answer with the device that such a packet comes by, so that strict (1) and loose
(2) both let it in. So the rule for answers can't ask for a mark of the packet filter's, by which it
would hold what comes by the tunnel unasked when the ruleset is gone: a client's first packet has no
mark, and strict and loose would drop it (tried).

A default route is one shorter than /8, too: the two halves that OpenVPN's `redirect-gateway def1`
makes, by hand or by another program, must not become a way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_network

from ocgate.names import BLACKHOLE_METRIC, TUNNEL_RULE_PRIO, TUNNEL_TABLE
from ocgate.plan.facts import Address, Family, ForeignRule, Network, collapsed, rules_until
from ocgate.plan.routing import TABLE_MAIN, Route, RouteKind, Rule, RuleAction
from ocgate.tunnel.model import ExitIntent

# Offsets from the intent's rule_prio; the drawing above tells them.
ANSWERS_BEYOND, ANSWERS, FROM_TUNNEL, FORWARDED = range(4)
DIRECT, DIRECT_HELD, ON_LINK, OWN, OWN_HELD, LAST = range(4, 10)

# Routes of main this short or shorter are ways out and not networks: nobody's docker network is
# larger than 10.0.0.0/8 (RFC 1918), or than fd00::/8 (RFC 4193).
LONGEST_DEFAULT = 7

_DEFAULT: dict[Family, Network] = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


def routes(intent: ExitIntent) -> Iterator[Route]:
    """T: the tunnel while it carries the family, and below it what holds otherwise.

    `blackhole` and not `unreachable`: of a packet with a forged source, the ICMP error would go to
    whom it names. Clients are told by the packet filter, which looks at the source before, and this
    host's own programs by the rule behind.
    """
    for family in _families(intent):
        if intent.carries(family):
            yield Route(_DEFAULT[family], table=TUNNEL_TABLE, device=intent.device)
        yield Route(
            _DEFAULT[family], RouteKind.BLACKHOLE, table=TUNNEL_TABLE, metric=BLACKHOLE_METRIC
        )


def rules(intent: ExitIntent) -> tuple[Rule, ...]:
    """All of them, in the order of family and priority."""
    found = [rule for family in _families(intent) for rule in _of(intent, family)]
    return tuple(sorted(found, key=lambda rule: (rule.family, rule.priority)))


def rules_before(rules: Iterable[ForeignRule]) -> tuple[ForeignRule, ...]:
    """Policy rules of other programs that would be asked before the last of ours at their usual
    place, in their order."""
    return rules_until(rules, TUNNEL_RULE_PRIO, TUNNEL_RULE_PRIO + LAST)


def first_priority(rules: Iterable[ForeignRule]) -> int | None:
    """TUNNEL_RULE_PRIO, or less where only that has all of ours before these of other programs;
    None where there is no room before them."""
    before = rules_before(rules)
    first = before[0].priority - LAST - 1 if before else TUNNEL_RULE_PRIO
    return first if first >= 1 else None


def said_of(rules: Iterable[ForeignRule]) -> str:
    """What start, log and status tell of such rules, '' where none is in the way."""
    before = rules_before(rules)
    if not before:
        return ""
    base = first_priority(before)
    meanwhile = f"ours were moved and begin at {base}"
    if base is None:
        meanwhile = "there is no room for ours before it, so the kill switch stays closed: move it "
        meanwhile += f"to a priority above {TUNNEL_RULE_PRIO + LAST}"
    ip = "ip rule" if before[0].family == 4 else "ip -6 rule"
    return f"`{ip}` shows another program's rule `{before[0]}` before or among ours; {meanwhile}"


def _families(intent: ExitIntent) -> tuple[Family, ...]:
    return (4, 6) if intent.ipv6 else (4,)


def _of(intent: ExitIntent, family: Family) -> Iterator[Rule]:
    answers = Rule(family, _at(intent, ANSWERS), table=TABLE_MAIN, iif=intent.device)
    for net in intent.direct(family):
        yield replace(answers, priority=_at(intent, ANSWERS_BEYOND), destination=net)
    yield _local(answers)
    yield _held(intent, answers, FROM_TUNNEL, RuleAction.BLACKHOLE)
    yield Rule(family, _at(intent, FORWARDED), table=TUNNEL_TABLE, iif="lo", inverted=True)
    own = Rule(family, _at(intent, OWN), table=TUNNEL_TABLE, iif="lo")
    for net in _direct(intent, family):
        to = replace(own, priority=_at(intent, DIRECT), table=TABLE_MAIN, destination=net)
        yield to
        yield _held(intent, to, DIRECT_HELD, RuleAction.UNREACHABLE)
    yield _local(replace(own, priority=_at(intent, ON_LINK), table=TABLE_MAIN))
    if intent.carries(family):
        yield own
    yield _held(intent, own, OWN_HELD, RuleAction.UNREACHABLE)
    yield Rule(family, _at(intent, LAST), RuleAction.BLACKHOLE)


def _direct(intent: ExitIntent, family: Family) -> list[Network]:
    """What this host reaches by main, whatever route that has."""
    opened: list[Address] = [intent.endpoint.address] if intent.endpoint else []
    if intent.bootstrap is not None:
        opened += [a for a in intent.bootstrap.resolvers if not a.is_loopback]
        opened += [service.address for service in intent.bootstrap.services]
    hosts = [ip_network(address) for address in opened if address.version == family]
    return collapsed([*hosts, *intent.direct(family)])


def _local(rule: Rule) -> Rule:
    return replace(rule, suppress_prefixlength=LONGEST_DEFAULT)


def _held(intent: ExitIntent, rule: Rule, offset: int, action: RuleAction) -> Rule:
    """What holds the same packets when the table of `rule` has no answer."""
    return replace(rule, priority=_at(intent, offset), action=action, table=None)


def _at(intent: ExitIntent, offset: int) -> int:
    return intent.rule_prio + offset

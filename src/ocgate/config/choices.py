"""The values of settings that are one of a few words. Pure; every room may import them."""

from __future__ import annotations

from enum import StrEnum


class Ipv6Nat(StrEnum):
    """Whether clients get IPv6 by NAT66."""

    OFF = "0"
    """Never."""
    ON = "1"
    """Always, and loudly so where there is no IPv6 egress."""
    AUTO = "auto"
    """Only while a probe shows that IPv6 egress works."""


class LogFormat(StrEnum):
    """One line an event in either."""

    HUMAN = "human"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe event that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Forwarding(StrEnum):
    """Whether anybody but the clients may forward through this network namespace."""

    AUTO = "auto"
    """Exclusive in a network namespace of its own (a container), shared in the machine's."""
    EXCLUSIVE = "exclusive"
    """Nobody: what is forwarded never sees the main table's default route."""
    SHARED = "shared"
    """Others too, a docker host's containers say: what is not of clients is left alone."""


class HealthPath(StrEnum):
    """A way to the internet that the container's health may depend on."""

    DIRECT = "direct"
    """By this host, like its own."""
    DEFAULT = "default"
    """By what the clients leave."""
    ALL = "all"
    """By each of these."""

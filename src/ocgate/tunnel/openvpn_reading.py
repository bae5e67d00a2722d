"""An OpenVPN client's file -> `Profile`, or every problem in it. Pure.

What each directive comes to stands in `openvpn_directives`; here are those that are understood.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ocgate.errors import ConfigurationError, Problem
from ocgate.outside import is_host
from ocgate.tunnel.model import Protocol, Remote
from ocgate.tunnel.openvpn_directives import IN_CONNECTION, UNKNOWN, Verdict, rule, weakness
from ocgate.tunnel.openvpn_profile import FILES, Content, Line, Login, Profile, Server
from ocgate.tunnel.openvpn_syntax import (
    LONGEST_LINE,
    Directive,
    block,
    connection_lines,
    directives,
    rendered,
)

DEFAULT_PORT = 1194  # openvpn(8), --port; IANA's

_PROTOCOLS: dict[str, Protocol] = {
    **dict.fromkeys(("udp", "udp4", "udp6"), "udp"),
    **dict.fromkeys(("tcp", "tcp4", "tcp6", "tcp-client", "tcp4-client", "tcp6-client"), "tcp"),
}
_PROTOCOLS_ACCEPTS = "udp or tcp, also with 4, 6 or -client"
_PORT = re.compile(r"[0-9]{1,5}")

# By one of these a server proves that it is one, and not another customer with a certificate.
_PROOFS = frozenset(
    {
        *("remote-cert-tls", "remote-cert-eku", "ns-cert-type", "verify-x509-name"),
        *("verify-hash", "peer-fingerprint"),
    }
)


def read(
    text: str, source: str, *, files: Mapping[str, Content], login: Login | None = None
) -> Profile:
    """The profile in a client's configuration.

    source: how the file is called in errors. files: what `referred` named. login: user and password
    of the environment, which win over the file's. Raises ConfigurationError with all problems.
    """
    found, problems = directives(text, source)
    reading = _Reading(source, files, login, problems)
    for each in found:
        reading.take(each, reading.main)
    return reading.profile()


@dataclass
class _Scope:
    """The whole file, or one <connection> block."""

    lines: list[Line] = field(default_factory=list)
    remotes: list[Directive] = field(default_factory=list)
    protocol: Protocol | None = None
    port: int | None = None


class _Reading:
    """One pass over the directives; a method for each that is understood."""

    def __init__(
        self,
        source: str,
        files: Mapping[str, Content],
        login: Login | None,
        problems: list[Problem],
    ) -> None:
        self.main = _Scope()
        self._source, self._files, self._login = source, files, login
        self._problems = problems
        self._notices: dict[str, str] = {}
        self._blocks: list[_Scope] = []
        self._flags: set[str] = set()
        self._ignored: set[str] = set()
        self._own_login: Login | None = None
        self._only: Protocol | None = None
        self._asks = 0  # line of auth-user-pass

    def take(self, each: Directive, scope: _Scope) -> None:
        """One directive of the file, or of a <connection> block."""
        verdict = rule(each.name)
        if verdict is UNKNOWN and each.name in self._ignored:
            return
        if verdict is UNKNOWN:
            self._wrong(each, "a directive that ocgate knows", verdict.instead)
        elif verdict.verdict is Verdict.REFUSED:
            self._wrong(each, f"it left out, because {verdict.reason}", verdict.instead)
        elif verdict.verdict is Verdict.DROPPED:
            self._notice(each, verdict.reason)
        elif verdict.verdict is Verdict.KEPT:
            self._keep(each, scope)
        elif verdict.verdict is Verdict.READ:
            self._understand(each, scope)

    def _understand(self, each: Directive, scope: _Scope) -> None:
        anywhere: dict[str, Callable[[Directive, _Scope], None]] = {
            "remote": lambda each, scope: scope.remotes.append(each),
            "proto": self._take_proto,
            "port": self._take_port,
            "rport": self._take_port,
            "connection": self._take_connection,
            "key-direction": self._keep,
            "setenv": self._take_setenv,
            "peer-fingerprint": self._take_fingerprint,
        }
        once: dict[str, Callable[[Directive], None]] = {
            "proto-force": self._take_proto_force,
            "dev": self._take_device,
            "dev-type": self._take_device,
            "auth-user-pass": self._take_login,
            "ignore-unknown-option": lambda each: self._ignored.update(each.words),
        }
        if each.name in FILES:
            self._take_file(each, scope)
        elif each.name in anywhere:
            anywhere[each.name](each, scope)
        elif each.name in once:
            once[each.name](each)
        else:
            self._flags.add(each.name)

    def _keep(self, each: Directive, scope: _Scope) -> None:
        if each.body is not None:
            self._wrong(each, "a line and no block", "write it as a line")
            return
        weak = weakness(each.name, each.words)
        if weak is not None:
            self._wrong(each, weak.expected, weak.instead)
            return
        text = rendered(each.name, each.words)
        if len(text.encode()) > LONGEST_LINE:
            self._wrong(each, f"at most {LONGEST_LINE} bytes with quotes", "shorten it")
        scope.lines.append(Line(each.name, text + "\n"))

    def _take_proto(self, each: Directive, scope: _Scope) -> None:
        scope.protocol = self._protocol(each, each.words[0] if each.words else "")

    def _take_proto_force(self, each: Directive) -> None:
        self._only = self._protocol(each, each.words[0] if each.words else "")

    def _take_port(self, each: Directive, scope: _Scope) -> None:
        scope.port = self._number(each, each.words[0] if each.words else "")

    def _take_device(self, each: Directive) -> None:
        if not (each.words and each.words[0].startswith("tun")):
            self._wrong(each, "tun (layer 3)", "take a configuration with `dev tun`")

    def _take_connection(self, each: Directive, scope: _Scope) -> None:
        if each.body is None or scope is not self.main:
            self._wrong(each, "a block <connection>", "write it as a block")
            return
        own = _Scope()
        inner, problems = connection_lines(each, self._source)
        self._problems += problems
        for line in inner:
            if line.name not in IN_CONNECTION:
                self._wrong(line, "a directive of a connection", "write it outside of the block")
            else:
                self.take(line, own)
        if len(own.remotes) != 1:
            self._wrong(each, "one `remote` in it", "write a block for each server")
        self._blocks.append(own)

    def _take_setenv(self, each: Directive, scope: _Scope) -> None:
        """`setenv opt X` is X for whom it knows; UV_* goes to the server. The rest would reach the
        hook's environment, which is nobody's to furnish."""
        if len(each.words) >= 2 and each.words[0] == "opt":
            inner = Directive(each.line, each.words[1], each.words[2:])
            if rule(inner.name) is not UNKNOWN:
                self.take(inner, scope)
        elif each.words and re.fullmatch(r"UV_[A-Za-z0-9_]+", each.words[0]):
            self._keep(each, scope)

    def _take_fingerprint(self, each: Directive, scope: _Scope) -> None:
        if each.body is None:
            self._keep(each, scope)
        elif self._is_fit(each, each.body):
            scope.lines.append(Line(each.name, block(each.name, each.body)))

    def _take_file(self, each: Directive, scope: _Scope) -> None:
        extra = each.words[1:] if each.body is None else ()
        if each.name == "tls-auth" and extra:
            scope.lines.append(Line("key-direction", f"key-direction {self._direction(each)}\n"))
        elif extra:
            self._wrong(each, "the name of one file", "write the file's name alone")
        body = each.body
        if body is None:
            if not each.words:
                self._wrong(each, "a file or a block", "name a file")
                return
            if each.words[0] == "[inline]":
                return
            body = self._content(each)
        if body is not None and self._is_fit(each, body):
            scope.lines.append(Line(each.name, block(each.name, body)))

    def _direction(self, each: Directive) -> int:
        if each.words[1] not in ("0", "1") or len(each.words) > 2:
            self._wrong(each, "a file, and 0 or 1", "write 1 for a client")
        return 0 if each.words[1] == "0" else 1

    def _content(self, each: Directive) -> str | None:
        """What stands in the file that a directive names, as a block's text."""
        content = self._files.get(each.words[0], "it was not read")
        if isinstance(content, str):
            self._wrong(each, f"a readable file ({content})", "put it beside the configuration")
            return None
        if each.name == "pkcs12":
            return base64.encodebytes(content).decode()
        try:
            return content.decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            self._wrong(each, "a text file (PEM)", "convert it: openssl x509 -in FILE -inform DER")
            return None

    def _is_fit(self, each: Directive, body: str) -> bool:
        """Whether OpenVPN reads this text as one block, and as what it should be."""
        lines = body.split("\n")
        if any(not line.isprintable() or len(line.encode()) > LONGEST_LINE for line in lines):
            expected = f"lines of at most {LONGEST_LINE} bytes without control characters"
            self._wrong(each, expected, "write it as openssl and openvpn do")
        elif any(line.lstrip().startswith("<") for line in lines):
            self._wrong(each, "keys and certificates, not lines with <", "name another file")
        elif each.name == "key" and "ENCRYPTED" in body:
            remedy = "write it without: openssl pkey -in KEY -out NEW"
            self._wrong(each, "a key without a passphrase", remedy)
        elif each.name not in ("pkcs12", "peer-fingerprint") and "-----BEGIN" not in body:
            self._wrong(each, "text with -----BEGIN (PEM)", "name the file that the provider gave")
        else:
            return True
        return False

    def _take_login(self, each: Directive) -> None:
        self._asks = each.line
        body = each.body
        named = body is None and bool(each.words) and each.words[0] != "[inline]"
        if self._login is not None or not (named or body):
            return
        text = self._content(each) if body is None else body
        if text is None:
            return
        lines = text.split("\n")
        if len(lines) < 2 or not lines[0] or not lines[1]:
            expected = "a file with the user on its first line and the password on its second"
            self._wrong(each, expected, "write both, or set USER and PASS")
            return
        self._own_login = (lines[0].rstrip("\r"), lines[1].rstrip("\r"))

    def profile(self) -> Profile:
        """What came of it; raises ConfigurationError."""
        self._need("client" in self._flags or "pull" in self._flags, "client", "add `client`")
        self._need_proof()
        servers = self._servers()
        login = self._login_of_profile()
        if self._problems:
            raise ConfigurationError(self._problems)
        shuffled = "remote-random" in self._flags
        lines = tuple(self.main.lines)
        notices = tuple(self._notices.values())
        return Profile(self._source, servers, lines, login, shuffled, notices)

    def _need(self, there: bool, key: str, remedy: str) -> None:  # noqa: FBT001
        if not there:
            self._problems.append(
                Problem(self._source, 0, key, None, f"{key} in a client's configuration", remedy)
            )

    def _need_proof(self) -> None:
        names = {line.name for line in self.main.lines}
        trust = names & {"ca", "pkcs12", "peer-fingerprint"}
        self._need(bool(trust), "ca", "add the provider's ca, or peer-fingerprint")
        if trust and not names & _PROOFS:
            self._notices[""] = (
                f"{self._source}: nothing in it tells a server from another customer with a "
                "certificate of the same authority; add `remote-cert-tls server`"
            )

    def _login_of_profile(self) -> Login | None:
        login = self._login or self._own_login
        if self._asks and login is None and not self._problems:
            self._problems.append(
                Problem(
                    *(self._source, self._asks, "auth-user-pass", None),
                    *("a user and a password", "set USER and PASS"),
                )
            )
        if self._login and not self._asks:
            self._notices["PASS"] = (
                f"{self._source}: without auth-user-pass USER and PASS have no effect"
            )
        return login if self._asks else None

    def _servers(self) -> tuple[Server, ...]:
        """Blocks win over lines, as in OpenVPN (options_postprocess_mutate)."""
        scopes = self._blocks or [self.main]
        made = []
        for scope in scopes:
            own = tuple(scope.lines) if scope is not self.main else ()
            for each in scope.remotes:
                remote = self._remote(each, scope)
                made += [Server(remote, own)] if remote else []
        if self._blocks and self.main.remotes:
            self._notice(self.main.remotes[0], "the <connection> blocks name the servers")
        possible = [s for s in made if self._only in (None, *s.remote.protocols)]
        self._need(bool(possible or self._problems), "remote", "add the server as `remote`")
        return tuple(dict.fromkeys(possible))

    def _remote(self, each: Directive, scope: _Scope) -> Remote | None:
        """`remote HOST [PORT] [PROTO]`."""
        if not 1 <= len(each.words) <= 3:
            self._wrong(each, "a host, a port and a protocol", "write `remote HOST 1194 udp`")
            return None
        host = each.words[0].removeprefix("[").removesuffix("]")
        if not is_host(host):
            self._wrong(each, "a host's name or address", "write it as the provider names it")
            return None
        port = scope.port or self.main.port or DEFAULT_PORT
        protocol = scope.protocol or self.main.protocol or "udp"
        if len(each.words) > 1:
            port = self._number(each, each.words[1])
        if len(each.words) > 2:
            protocol = self._protocol(each, each.words[2])
        shown = f"[{host}]" if ":" in host else host
        return Remote(host, port, (protocol,), f"{shown}:{port}/{protocol}")

    def _protocol(self, each: Directive, word: str) -> Protocol:
        known = _PROTOCOLS.get(word.lower())
        if known is None:
            self._wrong(each, _PROTOCOLS_ACCEPTS, "write udp or tcp")
        return known or "udp"

    def _number(self, each: Directive, word: str) -> int:
        if not _PORT.fullmatch(word) or not 1 <= int(word) <= 65535:
            self._wrong(each, "a port from 1 to 65535", f"write {DEFAULT_PORT}, say")
            return DEFAULT_PORT
        return int(word)

    def _wrong(self, each: Directive, expected: str, remedy: str) -> None:
        name = each.name if each.name.isprintable() else repr(each.name)
        self._problems.append(Problem(self._source, each.line, name, None, expected, remedy))

    def _notice(self, each: Directive, reason: str) -> None:
        """Once a directive: a file may have a hundred routes."""
        text = f"{self._source}:{each.line}: {each.name}: left out: {reason}"
        self._notices.setdefault(each.name, text)

"""The effective ocserv.conf in the run dir: rendered, shown to ocserv, and only then put in place.

ocserv dies of a SIGHUP with a configuration that it refuses, and every session with it (seen with
1.1.6, 1.3.0 and 1.5.0). So nothing is written where ocserv reads before `ocserv -t` has taken it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

from ocgate.errors import ConfigurationError, OcgateError, Problem
from ocgate.names import (
    EFFECTIVE_CONF,
    HOOK_CHAIN,
    HOOK_CONNECT,
    HOOK_DISCONNECT,
    KEYS,
    KEYS_NEW,
    OCCTL_SOCKET,
    OCSERV_PID,
    OCSERV_SOCKET,
)
from ocgate.ocserv import hooks, key_copies, services
from ocgate.ocserv.dryrun import dry_run
from ocgate.ocserv.render import Effective, EffectiveChoices, render
from ocgate.own_files import write
from ocgate.plan.ipv6 import Ipv6Path
from ocgate.runtime.log import stage
from ocgate.runtime.shortages import words
from ocgate.server.desired.prepare import Prepared
from ocgate.server.desired.sources import Sources

# Read by ocserv only when it starts: a reload that changed one would leave the rules guarding
# another device or port than ocserv uses.
_NEEDS_RESTART = ("device", "tcp-port", "udp-port", "run-as-user", "run-as-group", "auth",
                  "socket-file", "occtl-socket-file", "pid-file", "listen-host")  # fmt: skip

# What `put` writes, and nobody else.
_FILES = (EFFECTIVE_CONF, HOOK_CONNECT, HOOK_DISCONNECT, HOOK_CHAIN)

DEFAULT_AUTH_TIMEOUT = 240  # seconds; ocserv's own where the file is silent (ocserv(8))

log = stage("init-config")


def rendered(prepared: Prepared, run_dir: Path, *, keys: str | None = KEYS) -> Effective:
    """The effective file for this decision. keys: the directory in the run dir with copies of
    certificates and keys; None: as ocserv.conf names them."""
    agreed, view = prepared.sources.synced, prepared.sources.view
    choices = EffectiveChoices(
        connect_hook=str(run_dir / HOOK_CONNECT),
        disconnect_hook=str(run_dir / HOOK_DISCONNECT),
        socket_file=str(run_dir / OCSERV_SOCKET),
        pid_file=str(run_dir / OCSERV_PID),
        occtl_socket_file=str(run_dir / OCCTL_SOCKET),
        directory=str(prepared.sources.settings.config_dir),
        ipv4_network=agreed.ipv4_network,
        release=prepared.sources.release,
        ipv6_network=prepared.decision.network and agreed.ipv6_network,
        ipv6_subnet_prefix=view.ipv6_subnet_prefix,
        ipv6_resolvers=prepared.decision.path is not Ipv6Path.REJECTED,
        keys_directory=keys and str(run_dir / keys),
    )
    return render(prepared.sources.document, choices)


def validated(prepared: Prepared, run_dir: Path, *, renew: bool = True) -> Effective:
    """Rendered and taken by `ocserv -t`; raises ServerRefused with ocserv's words.

    renew: with certificates and keys as they are now, staged for `put`; raises ConfigurationError
    where a pair does not match. Otherwise with the copies that ocserv has already.
    """
    _make_room_for_sockets(prepared.sources)
    key_copies.unstage(run_dir)
    if renew:
        key_copies.stage(run_dir, read_keys(prepared.sources))
    try:
        _show_ocserv(prepared, run_dir, keys=KEYS_NEW if renew else KEYS)
    except OcgateError:
        key_copies.unstage(run_dir)
        raise
    return rendered(prepared, run_dir)


def _show_ocserv(prepared: Prepared, run_dir: Path, *, keys: str) -> None:
    trial = run_dir / f"{EFFECTIVE_CONF}.trial"
    shown = rendered(prepared, run_dir, keys=keys)
    write(trial, shown.data)
    try:
        for warning in dry_run(trial, shown, base=prepared.sources.settings.config_dir):
            log.warning("ocserv says", words=warning)
    finally:
        trial.unlink()


def read_keys(sources: Sources) -> key_copies.KeyFiles:
    """Certificates and keys as they are now; raises ConfigurationError."""
    return key_copies.read_keys(sources.document, sources.view, sources.settings.config_dir)


def put(effective: Effective, sources: Sources, run_dir: Path) -> None:
    """Make it the one that ocserv reads next, with our hooks, which chain the operator's, and with
    the keys that were staged, if any were."""
    key_copies.put(run_dir)
    hooks.install(run_dir, chain=_chain(effective), auth_timeout=_auth_timeout(sources))
    write(run_dir / EFFECTIVE_CONF, effective.data)


def _make_room_for_sockets(sources: Sources) -> None:
    """Directories of the sockets that ocserv.conf names: it was written for a system where another
    one's start makes /run/ocserv, say. ocserv would end without one, again and again."""
    for key in ("socket-file", "occtl-socket-file"):
        for entry in sources.document.of("", key)[-1:]:
            directory = (sources.settings.config_dir / entry.value).parent  # as ocserv is started
            try:
                directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            except OSError as error:
                expected = f"a file in a directory that can be made ({error.strerror})"
                where = (sources.document.source, entry.line, key, entry.value)
                remedy = (
                    f"Take the line out: ocgate has a place for it in {sources.settings.run_dir}"
                )
                raise ConfigurationError([Problem(*where, expected, remedy)]) from error


def _chain(effective: Effective) -> Iterator[hooks.ChainedScript]:
    for vhost, (connect, disconnect) in effective.chain.items():
        if connect:
            yield hooks.ChainedScript(vhost, "connect", connect)
        if disconnect:
            yield hooks.ChainedScript(vhost, "disconnect", disconnect)


def _auth_timeout(sources: Sources) -> int:
    text = sources.view.main.text("auth-timeout") or ""
    return int(text) if text.isdigit() else DEFAULT_AUTH_TIMEOUT


def needs_restart(old: Sources, new: Sources) -> list[Problem]:
    """What a reload can't change, one problem each."""
    found = []
    for key in _NEEDS_RESTART:
        before = [entry.value for entry in old.document.of("", key)]
        after = new.document.of("", key)
        if before != [entry.value for entry in after]:
            got, line = (after[-1].value, after[-1].line) if after else (None, 0)
            expected = f"{before[-1] if before else 'it to be absent'}, as when ocserv was started"
            found.append(Problem(new.document.source, line, key, got, expected,
                                 "Restart ocgate to change it; a reload can't"))  # fmt: skip
    if old.settings.run_dir != new.settings.run_dir:
        origin = new.origin("OCGATE_RUN_DIR")
        found.append(Problem(origin.source, origin.line, "OCGATE_RUN_DIR",
                             str(new.settings.run_dir), str(old.settings.run_dir),
                             "Restart ocgate to change it; a reload can't"))  # fmt: skip
    return found


class EffectiveConf:
    """Keeps the effective file at the decision while the server runs."""

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._busy = asyncio.Lock()  # a reload, a probe's verdict and a renewal may come together
        self._latest: Prepared | None = None
        self._untold = False  # what was put in place is not read yet
        self.trouble = ""  # why ocserv has another configuration than it should, or ''

    @property
    def is_missing(self) -> bool:
        """Whether somebody removed what ocserv reads or runs: without it none starts again, or
        nobody gets in."""
        return not all((self._run_dir / name).exists() for name in _FILES)

    async def follow(self, prepared: Prepared) -> None:
        """If the decision changes what new clients are given, or the file was removed, write it
        and tell ocserv."""
        current = self._current()
        if rendered(prepared, self._run_dir).data == current and not self._untold:
            self.trouble = ""
            return
        try:
            if current is None:
                log.warning("what ocserv reads was removed; it is written anew")
            await self.replace(prepared, renew=False)
            self.trouble = ""
        except OcgateError as error:
            if not self.trouble:
                log.error("ocserv keeps its former configuration", why=str(error))
            self.trouble = f"ocserv keeps its former configuration: {error.message}"

    def _current(self) -> bytes | None:
        if self.is_missing:
            return None
        try:
            return (self._run_dir / EFFECTIVE_CONF).read_bytes()
        except OSError:
            return None

    async def replace(self, prepared: Prepared, *, renew: bool = True) -> None:
        """Validate, put in place, and hang up; raises ServerRefused, and then nothing changed.
        renew: take certificates and keys as they are now."""
        async with self._busy:
            await self._replace(prepared, renew=renew)
        log.info("ocserv re-reads its configuration", ipv6=prepared.decision.word)

    async def renew(self, prepared: Prepared) -> None:
        """The same with what was put in force last, and with new certificates and keys."""
        async with self._busy:
            await self._replace(self._latest or prepared, renew=True)

    async def _replace(self, prepared: Prepared, *, renew: bool) -> None:
        try:
            effective = await asyncio.to_thread(validated, prepared, self._run_dir, renew=renew)
            put(effective, prepared.sources, self._run_dir)
        except OSError as error:
            raise OcgateError(
                f"writing what ocserv reads: {words(error)}",
                hint="Free some space in the run dir",
            ) from error
        self._latest, self._untold = prepared, True
        if await asyncio.to_thread(services.ocserv_pid, self._run_dir) is None:
            log.info("ocserv reads its configuration when it starts")
        else:
            await asyncio.to_thread(services.reload_ocserv, self._run_dir)
        self._untold = False

"""Turns this process into the supervisor; the last thing `ocgate run` or `exit` does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NoReturn

from ocgate import names
from ocgate.errors import MissingRequirement

# What all services of a container together may need: docker's own list and NET_ADMIN, without
# devices and file capabilities. SETPCAP lets each service give up more. NET_BIND_SERVICE, SETUID,
# SETGID and SYS_CHROOT are ocserv's, AUDIT_WRITE is PAM's; the rest serves the operator's scripts.
_HANDED_ON = (
    *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "net_admin"),
    *("net_bind_service", "net_raw", "setgid", "setpcap", "setuid", "sys_chroot"),
)

# ld.so(8), perlrun(1), python(1), dash(1) and bash(1), gconv, gnutls and openssl, resolver(5): as
# sudo's own list (sudoers(5), env_reset).
_UNTRUSTED = ("LD_", "PYTHON", "PERL", "BASH_", "GLIBC_", "GNUTLS_", "OPENSSL_", "NFT_", "XTABLES_")
_UNTRUSTED_NAMES = (
    *("ENV", "SHELLOPTS", "BASHOPTS", "PS4", "IFS", "CDPATH", "GLOBIGNORE", "TMPDIR"),
    *("HOSTALIASES", "LOCALDOMAIN", "RES_OPTIONS", "RESOLV_HOST_CONF", "SSLKEYLOGFILE"),
    *("GCONV_PATH", "GETCONF_DIR", "LOCPATH", "NLSPATH", "MALLOC_CHECK_", "MALLOC_TRACE"),
    *("TERMINFO", "TERMINFO_DIRS", "TERMCAP"),
)

# There only in the machine's first network namespace (net/core/sysctl_net_core.c): on a host of
# one's own, scripts of the operator may do what root may. Nothing is lost by that: who is root of a
# whole machine writes its files, and so gets whatever he was not given.
_FIRST_NAMESPACE_ONLY = Path("/proc/sys/net/core/netdev_max_backlog")


def exec_supervisor(run_dir: Path, *, hand_on: Callable[[], None] = lambda: None) -> NoReturn:
    """Replace this process by s6-svscan (with a terminal: by its stand-in, see foreground.pl).

    The environment is handed on to control, for its settings, but for what would change which code
    root's programs run. SIGTERM, SIGINT and SIGQUIT to this pid are then the
    ordered stop, which ends it with exit status 0; SIGHUP reloads. Raises MissingRequirement if
    the program is not there.

    hand_on: called at the very last; what it makes inheritable is the supervisor's and control's.
    """
    services = (run_dir / names.SERVICES).absolute()
    arguments = ["s6-svscan", str(services)]
    if _has_terminal():
        arguments = ["perl", "-w", str(services / ".s6-svscan" / "foreground"), str(services)]
    else:
        # Out of the caller's process group: `timeout ocgate run` signals the whole group. Refused
        # to a group's leader (PID 1, a service of systemd), whose group is only ours.
        with contextlib.suppress(PermissionError):
            os.setsid()
    arguments = [*_limited(), *arguments]
    sys.stdout.flush()
    sys.stderr.flush()
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):  # or it would be by every service
        signal.signal(ignored_by_python, signal.SIG_DFL)
    hand_on()
    try:
        os.execvpe(arguments[0], arguments, trusted(os.environ))
    except OSError as error:
        raise MissingRequirement(
            f"{arguments[0]}: {error.strerror}", hint=f"install {arguments[0]} (Debian)"
        ) from error


def trusted(environ: Mapping[str, str]) -> dict[str, str]:
    """Without variables that load code into the loader, libraries, perl, python and shells, or
    redirect what they read; and without the caller's own directory in PATH."""
    kept = {name: text for name, text in environ.items() if not name.startswith(_UNTRUSTED)}
    for name in _UNTRUSTED_NAMES:
        kept.pop(name, None)
    if "PATH" in kept:
        absolute = [part for part in kept["PATH"].split(":") if part.startswith("/")]
        kept["PATH"] = ":".join(absolute) or os.defpath
    return kept


def _limited() -> list[str]:
    """What goes before a command so that it, and all below it, holds no other capabilities than
    those above and gains none by executing a program; nothing on a host of one's own. Without
    CAP_SETPCAP the container's own list is the limit."""
    if _FIRST_NAMESPACE_ONLY.exists():
        return []
    always = ["setpriv", "--no-new-privs", "--inh-caps=-all"]
    narrowed = [*always, f"--bounding-set=-all,+{',+'.join(_HANDED_ON)}"]
    try:
        tried = subprocess.run([*narrowed, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return []  # what goes on says that it is missing
    return narrowed if tried.returncode == 0 else always


def _has_terminal() -> bool:
    """Whether this session has a controlling terminal: then Ctrl-C reaches us."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:  # ENXIO
        return False
    return True

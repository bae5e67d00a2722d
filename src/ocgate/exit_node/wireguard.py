"""WireGuard's device as `wg` configures it, the kernel's or wireguard-go's. An edge.

Neither has a hook that reports: a tunnel stands when the other end has shaken hands. A keepalive
makes the device ask for that at once, and keeps the way through NATs open.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from ocgate.errors import OcgateError

# wg(8): "a sensible interval that works with a wide variety of firewalls is 25 seconds".
_KEEPALIVE = "PersistentKeepalive = 25\n"

# From the start of wireguard-go until its socket is there: 50 ms.
_SOCKET_LIMIT, _POLL = 3.0, 0.05  # seconds

# WireGuard sends a handshake again after 5 s (REKEY_TIMEOUT, wireguard.com/papers): two attempts.
_HANDSHAKE_LIMIT = 12.0  # seconds

_WG_LIMIT = 10.0  # seconds; `wg` asks the kernel, or a socket
_TRIAL = "ocgate-trial"  # a device that is made to see whether it can be

_SOCKETS = Path("/var/run/wireguard")  # where wg(8) looks for wireguard-go's


def kernel_has_it() -> bool:
    """Whether this kernel can make a WireGuard device; raises OcgateError where we may not try."""
    made = _run(["ip", "link", "add", _TRIAL, "type", "wireguard"])
    if made.returncode == 0:
        _run(["ip", "link", "delete", _TRIAL])
        return True
    if "not permitted" in made.stderr:
        raise OcgateError(
            f"making a WireGuard device: {made.stderr.strip()}",
            hint="add the capability: docker run --cap-add NET_ADMIN",
        )
    return False


def make_socket_directory(uid: int) -> None:
    """wireguard-go listens there as this user; raises OcgateError."""
    try:
        _SOCKETS.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chown(_SOCKETS, uid, uid)
    except OSError as error:
        raise OcgateError(f"{_SOCKETS}: {error.strerror}", hint="docker: --tmpfs /run") from error


def establish(device: str, text: str) -> None:
    """Configure the device with `wg setconf`'s text, and wait for the first handshake; raises
    OcgateError. Blocks for 15 s at most."""
    if "PersistentKeepalive" not in text:
        text += _KEEPALIVE
    deadline = time.monotonic() + _SOCKET_LIMIT
    while (why := _configured(device, text)) and time.monotonic() < deadline:
        time.sleep(_POLL)
    if why:
        raise OcgateError(f"wg setconf {device}: {why}")
    deadline = time.monotonic() + _HANDSHAKE_LIMIT
    while not _shaken_hands(device):
        if time.monotonic() > deadline:
            raise OcgateError("the server does not answer")
        time.sleep(_POLL)


def forget(device: str) -> None:
    """No peer any more: the device sends nothing. Of one that is gone that is true already."""
    _configured(device, "[Interface]\n")


def _configured(device: str, text: str) -> str:
    """'' or why not. Keys go by stdin, to be in nobody's sight."""
    done = _run(["wg", "setconf", device, "/dev/stdin"], text)
    return done.stderr.strip() or f"exit status {done.returncode}" if done.returncode else ""


def _shaken_hands(device: str) -> bool:
    """`PUBLIC-KEY<tab>SECONDS-SINCE-1970` a peer, 0 for never."""
    shown = _run(["wg", "show", device, "latest-handshakes"]).stdout
    return any(line.split()[-1] != "0" for line in shown.splitlines() if line.strip())


def _run(argv: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv, input=text, capture_output=True, text=True, timeout=_WG_LIMIT, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 1, "", "no answer")
    except OSError as error:  # no processes
        return subprocess.CompletedProcess(argv, 1, "", f"{argv[0]}: {error.strerror}")

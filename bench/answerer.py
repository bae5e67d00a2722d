"""A control plane that admits everybody at once: what the hook costs when nothing is decided.

Run as `python answerer.py SOCKET`; says "listening", ends by a signal.
"""

from __future__ import annotations

import socket
import sys


def _main() -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(sys.argv[1])
    listener.listen(16)
    print("listening", flush=True)
    while True:
        peer, _ = listener.accept()
        with peer:
            request = b""
            while not request.endswith(b"\0\0"):
                piece = peer.recv(65_536)
                if not piece:
                    break
                request += piece
            peer.sendall(b"admitted\n")


if __name__ == "__main__":
    _main()

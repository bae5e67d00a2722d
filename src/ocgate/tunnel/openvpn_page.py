"""`python -m ocgate.tunnel.openvpn_page > docs/openvpn-directives.md` writes the page anew."""

from __future__ import annotations

import sys

from ocgate.tunnel.openvpn_directives import directives_markdown

if __name__ == "__main__":
    sys.stdout.write(directives_markdown())

"""`python -m ocgate.config.reference > docs/reference.md` writes the settings' page anew."""

from __future__ import annotations

import sys

from ocgate.config.page import reference_markdown

if __name__ == "__main__":
    sys.stdout.write(reference_markdown())

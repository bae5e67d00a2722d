"""The server role: `run` starts it, `daemon` serves, `teardown` ends it."""

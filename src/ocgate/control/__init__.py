"""The wiring, which alone knows all rooms: `run` starts, `daemon` serves, `teardown` ends."""

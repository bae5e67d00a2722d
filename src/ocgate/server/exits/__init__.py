"""The ways clients leave by, while the server runs: watched, followed, remembered."""

"""The comparison: the fault matrix of `ocgate prove` against a plain gateway configuration."""

"""Network namespaces and what stands in them: what `prove` and the lab build networks of."""

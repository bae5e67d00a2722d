"""Small doors to the kernel: nftables, routes, rules, sysctls, conntrack, events, probes."""

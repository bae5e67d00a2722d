"""The gateways that clients leave by: what they are called, where they are, whether they answer."""

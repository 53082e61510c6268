"""Plans of searches: what fits data, devices and time."""

"""Search spaces: what the decisions are and when two architectures are the same network."""

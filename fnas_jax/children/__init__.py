"""Child networks: one elastic network per space, compiled once, that becomes any architecture."""

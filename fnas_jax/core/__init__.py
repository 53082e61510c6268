"""What every room may use: shared types, configuration, checkpoints, logging, devices."""

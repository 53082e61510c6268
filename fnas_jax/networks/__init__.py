"""Networks that an architecture vector turns into one of their children."""

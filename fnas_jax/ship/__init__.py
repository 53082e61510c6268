"""From the winner of a search to a network that is used: `best/`, and what reads it."""

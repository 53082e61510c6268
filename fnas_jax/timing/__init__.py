"""How long networks take: operations one by one, look-up tables of them, and the clock."""

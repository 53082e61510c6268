"""Faults that searches must survive, brought about in processes of their own: `make soak`."""

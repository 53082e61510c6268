"""Tasks: what an architecture is good for, measured by training it or by looking it up."""

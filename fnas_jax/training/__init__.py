"""Training of children: one, a population over devices, images that do not fit."""

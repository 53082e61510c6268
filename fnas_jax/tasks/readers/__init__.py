"""One reader per kind of image set; each returns the same `Source`."""

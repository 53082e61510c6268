"""Searches that end in the middle, at a place that a test names."""

import contextlib

import pytest

from fnas_jax.core import checkpoint


@contextlib.contextmanager
def killed_behind(checkpoints, by):
    """What is inside ends by the exception `by`, behind so many checkpoints of a search."""
    real, left = checkpoint.save, [checkpoints]

    def save(manager, *rest):
        real(manager, *rest)
        left[0] -= "checkpoints" in str(manager.directory)  # and not the knowledge store's own
        if left[0] == 0:
            raise by

    with pytest.MonkeyPatch.context() as patch, pytest.raises(by):
        patch.setattr(checkpoint, "save", save)
        yield

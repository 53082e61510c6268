"""What is held while a table is made."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import UserError
from fnas_jax.spaces import cell
from fnas_jax.timing import clock, make, whole

IMAGES = whole.Images((8, 8, 1), np.uint8, 3, lambda pixels: pixels / 255.0)


@pytest.fixture
def exhausted(monkeypatch):
    def compiled(function, args):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")

    monkeypatch.setattr(clock, "compiled", compiled)


def program(shape, dtype=jnp.float32):
    """Of two equal arguments."""
    return lambda: (lambda x, y: x + y, (jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)))


def test_programs_hold_arguments_of_a_shape_and_type_together(monkeypatch):
    given = []
    monkeypatch.setattr(clock, "compiled", lambda function, args: given.append(args))
    monkeypatch.setattr(clock, "interleaved", lambda calls, tell: np.zeros(len(calls)))
    monkeypatch.setattr(make, "trial", lambda program: 0.0)
    kinds = [[program((2, 3)), program((3, 2))], [program((2, 3)), program((2, 3), jnp.uint8)]]
    make.timed(kinds, print)
    assert [args[0].shape for args in given] == [(2, 3), (3, 2), (2, 3), (2, 3)]
    assert len({id(x) for args in given for x in args}) == 3
    assert given[0][0] is given[2][1] and given[3][0].dtype == jnp.uint8


def test_memory_that_does_not_suffice_is_one_sentence(exhausted):
    space = cell.make(channels=4, cells_per_stage=1)
    message = r"^the memory of .*cpu.* does not hold what is timed with 64 images a pass; latency\."
    with pytest.raises(UserError, match=message):
        whole.latency_ms(space, [3, 1, 1, 1, 1, 1], IMAGES, 64, 3)
    with pytest.raises(UserError, match=message):
        make.make(space, IMAGES, 64, 2, print)


def test_other_failures_are_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), clock.enough_memory(1):
        raise jax.errors.JaxRuntimeError("INTERNAL: broken")

"""Machines by their published figures."""

import pytest

from fnas_jax.core.types import UserError
from fnas_jax.planning import machines


def test_a_kind_and_a_machine_of_ones_own():
    eight = machines.parse("8xH100")
    assert (eight.devices, eight.kind.tflops, eight.kind.gib) == (8, 989.0, 60.0)
    assert machines.parse("8xh100", price=1.5).kind.price == 1.5
    own = machines.parse("3x24:165.5")
    assert (own.devices, own.kind.gib, own.kind.tflops, own.kind.price) == (3, 24.0, 165.5, 0.0)


def test_a_multiply_add_of_a_forward_pass_is_six_operations_of_training():
    """Two of the pass itself, four of the backward pass."""
    assert machines.parse("1x16:100").speed(0.3) == pytest.approx(5e12)
    assert machines.operations(1.0) == 6


@pytest.mark.parametrize(
    "text", ["h100", "0xh100", "8xh1000", "x", "8x", "8x0:5", "8x24:0", "8x24"]
)
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match="--plan_on is"):
        machines.parse(text)


def test_the_nearest_kind_is_named():
    with pytest.raises(UserError, match=r"of h100, v5e; did you mean 'h100'\?, or COUNTxGIB"):
        machines.parse("8xh10")

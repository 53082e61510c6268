"""In float64 nothing of a network is float32: elastic and Flax networks agree to all its digits."""

import pytest

from tests.networks import agreement
from tests.networks.agreement import CLASSES, PIXELS

CASES = [(space, CLASSES) for space in agreement.SPACES]
CASES += [(space, PIXELS) for space in ("macro", "mixed_cell")]


@pytest.mark.slow
@pytest.mark.parametrize(("space", "outputs"), CASES)
def test_networks_of_every_space_have_the_gradients_of_flax_networks_in_float64(space, outputs):
    case = agreement.in_double(space, outputs)
    for check in agreement.CHECKS:
        check(case, 1e-10)

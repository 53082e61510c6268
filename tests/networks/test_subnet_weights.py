"""Children of the MNAS space equal Flax networks of the same weights."""

import pytest

from fnas_jax.networks import subnet_weights
from fnas_jax.spaces import categorical
from tests.networks import agreement


@pytest.fixture(scope="module")
def case():
    return agreement.case("mnas")


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)


def test_a_space_without_networks_is_refused():
    with pytest.raises(ValueError, match="has no networks"):
        subnet_weights.get(categorical.make((2, 3)), [0, 0], {}, {})

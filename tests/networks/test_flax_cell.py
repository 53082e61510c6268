"""Children of the cell space equal Flax networks of the same weights."""

import pytest

from tests.networks import agreement


@pytest.fixture(scope="module")
def case():
    return agreement.case("cell")


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)

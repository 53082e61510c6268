"""Children of the Macro space equal plain networks with the extracted weights."""

import pytest

from tests.networks import agreement


@pytest.fixture(scope="module")
def case():
    return agreement.case("macro")


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_plain_network(case, check):
    check(case)

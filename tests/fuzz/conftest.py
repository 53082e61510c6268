"""How many cases: 30 of each in the quick suite; with --hypothesis-profile=soak 10,000.

Or as many as the environment variable FUZZ_CASES says, in that profile.
"""

import logging
import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "soak",
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_CASES", "10000")),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture
def quiet():
    """Nobody reads what is logged of thousands of damaged files."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)

"""How many cases: 30 of each in the quick suite, 10,000 with --hypothesis-profile=soak."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "soak", deadline=None, max_examples=10_000, suppress_health_check=list(HealthCheck)
)

"""How many cases: 30 of each in the quick suite; with --hypothesis-profile=soak 10,000.

Or as many as the environment variable FUZZ_CASES says, in that profile, which ends with a table of
what each target took.
"""

import functools
import itertools
import logging
import os
import pathlib
import re
import time

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "soak",
    deadline=None,
    max_examples=int(os.environ.get("FUZZ_CASES", "10000")),
    suppress_health_check=list(HealthCheck),
)
TOOK = "took"  # the property of a report with what the test took


@pytest.fixture
def quiet():
    """Nobody reads what is logged of thousands of damaged files."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture(autouse=True)
def took(request, record_property):
    """Counts the cases of a test, and says how long they took and how much memory in all."""
    handle = getattr(request.function, "hypothesis", None)
    if handle is None:
        yield
        return
    inner, cases = handle.inner_test, itertools.count()

    @functools.wraps(inner)
    def counted(*arguments, **named):
        next(cases)
        return inner(*arguments, **named)

    handle.inner_test = counted
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # VmHWM is what there is now
    before, start = _resident("VmRSS"), time.monotonic()
    yield
    seconds, peak = time.monotonic() - start, _resident("VmHWM") - before
    handle.inner_test = inner
    record_property(TOOK, (next(cases), seconds, peak))


def _resident(name):
    """MiB."""
    text = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1024


def pytest_terminal_summary(terminalreporter, config):
    """The table."""
    if config.getoption("hypothesis_profile", default=None) != "soak":
        return
    terminalreporter.section("cases, seconds, MiB beyond what there was")
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, found in getattr(report, "user_properties", ()):
                if name == TOOK and report.when == "teardown":
                    cases, seconds, peak = found
                    text = f"{report.nodeid}: {cases}, {seconds:.0f}, {peak:.0f}"
                    terminalreporter.line(text)

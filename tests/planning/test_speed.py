"""Speed tells how long networks take that do more, or move more, than those that were timed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.planning import plan, speed
from fnas_jax.tasks import images
from tests.planning.test_plan import auto

POSITIVE = st.floats(1e-12, 1e-7)


@given(POSITIVE, POSITIVE)
def test_what_was_timed_is_explained(each, moving):
    macs, kept = np.array([2e6, 9e6, 30e6]), np.array([1e5, 1.5e5, 6e5])
    found = speed.fitted(macs, kept, macs * each + kept * moving)
    assert found.macs == pytest.approx(1 / each, rel=1e-3)
    assert found.moved == pytest.approx(moving / each, rel=1e-3, abs=1e-6)


def test_work_is_never_negative():
    macs, kept = np.array([1e6, 2e6, 4e6]), np.array([4e5, 2e5, 1e5])
    by_macs, by_kept = speed.fitted(macs, kept, macs / 1e9), speed.fitted(macs, kept, kept / 1e9)
    assert by_macs.moved == pytest.approx(0, abs=1e-9) and by_macs.macs == pytest.approx(1e9)
    # What takes no time counts for nearly nothing.
    seconds = (macs + by_kept.moved * kept) / by_kept.macs
    np.testing.assert_allclose(seconds, kept / 1e9, rtol=0.05)


def test_what_is_moved_counts_as_work():
    ctx = plan.context(auto(), images.load(auto()))
    plain, moving = speed.size_of(ctx), speed.size_of(ctx, 10.0)
    archs = np.asarray(speed.sampled(ctx)[0])
    kept = np.mean([speed.kept_by(ctx, arch) for arch in archs])
    assert moving.mean == pytest.approx(plain.mean + 10 * kept)
    assert moving.high > plain.high

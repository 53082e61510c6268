"""Arrays that stay in their files give what the same arrays in memory give."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core import mapped, memory
from fnas_jax.core.types import UserError

VALUES = np.random.default_rng(0).integers(0, 256, (50, 4, 3, 2), dtype=np.uint8)


def stored(folder, values=VALUES, name="x.bin"):
    (folder / name).write_bytes(b"head" + values.tobytes())
    return mapped.mapped(folder / name, 4, values.shape, values.dtype)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("mapped"))


@given(st.lists(st.integers(-50, 49), max_size=60))
def test_rows_in_any_order_and_more_than_once(found, rows):
    rows = np.asarray(rows, np.int64)
    np.testing.assert_array_equal(found[rows], VALUES[rows])
    np.testing.assert_array_equal(np.asarray(found.take(rows)), VALUES[rows])
    np.testing.assert_array_equal(found[rows, ::2, 1], VALUES[rows][:, ::2, 1])


def test_it_looks_like_the_array(found):
    for name in ("shape", "ndim", "dtype", "size", "nbytes"):
        assert getattr(found, name) == getattr(VALUES, name)
    assert len(found) == 50
    np.testing.assert_array_equal(found[-1], VALUES[-1])
    np.testing.assert_array_equal(found[3:7], VALUES[3:7])
    np.testing.assert_array_equal(list(found), VALUES)
    assert np.asarray(found, np.float32).dtype == np.float32
    with pytest.raises(IndexError):
        found[50]
    if np.lib.NumpyVersion(np.__version__) >= "2.0.0":  # which know `copy`
        with pytest.raises(ValueError, match="always copied"):
            np.asarray(found, copy=False)


def test_types_and_axes_change_when_rows_are_read(tmp_path):
    values = VALUES[..., 0].astype(">f8")
    found = stored(tmp_path, values).viewed((4, 3, 1), np.float32)
    assert found.shape == (50, 4, 3, 1) and found[2].dtype == np.float32
    np.testing.assert_array_equal(np.asarray(found)[..., 0], values)


def test_parts_are_joined_unread(tmp_path, found):
    other = stored(tmp_path, VALUES[::-1])
    both = mapped.joined(found.take(np.array([4, 2])), VALUES[:3], other.take(np.array([0])))
    assert isinstance(both, mapped.Mapped)
    want = np.concatenate([VALUES[[4, 2]], VALUES[:3], VALUES[[-1]]])
    np.testing.assert_array_equal(np.asarray(both), want)
    np.testing.assert_array_equal(both[[5, 0, 3]], want[[5, 0, 3]])
    assert isinstance(mapped.joined(VALUES, VALUES), np.ndarray)


def test_chunks_are_small_and_all(monkeypatch, found):
    monkeypatch.setattr(mapped, "CHUNK", 100)
    for images in (found, VALUES):
        pieces = list(mapped.chunks(images))
        assert max(piece.nbytes for piece in pieces) <= 100
        np.testing.assert_array_equal(np.concatenate(pieces), VALUES)
    shuffled = found.take(np.array([9, 1, 5]))
    np.testing.assert_array_equal(np.asarray(mapped.in_file_order(shuffled)), VALUES[[1, 5, 9]])


def test_a_file_that_is_cut_short_meanwhile_is_told(tmp_path):
    found = stored(tmp_path)
    (tmp_path / "x.bin").write_bytes(b"head")
    with pytest.raises(UserError, match=r"x\.bin has been cut short while it was read"):
        found[3]


def test_a_file_that_is_replaced_meanwhile_is_still_the_old_one(tmp_path):
    found = stored(tmp_path)
    (tmp_path / "x.bin").unlink()
    (tmp_path / "x.bin").write_bytes(b"another")
    np.testing.assert_array_equal(found[3], VALUES[3])


@pytest.mark.parametrize("name", ["memory.max", "memory/memory.limit_in_bytes"])
def test_the_memory_of_a_container_is_the_hosts(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("max\n")
    unlimited = memory.host_bytes(tmp_path)
    (tmp_path / name).write_text("1000000\n")
    assert memory.host_bytes(tmp_path) == 1000000 < unlimited

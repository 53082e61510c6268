import contextlib
import functools
import logging
import pathlib
import shutil
import signal
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core import checkpoint, disk, due, leftovers, signals
from fnas_jax.core.types import Failed, UserError


class Nested(NamedTuple):
    weights: jax.Array
    more: dict


@contextlib.contextmanager
def opened(folder):
    manager = checkpoint.open_(folder)
    with contextlib.closing(manager):
        yield manager


def tree(value):
    return Nested(
        jnp.full((3, 4), value, jnp.float32),
        {
            "odd": np.array([np.nan, np.inf, -np.inf, -0.0]),
            "flags": jnp.array([True, False]),
            "empty": jnp.zeros((0, 5), jnp.int32),
            "scalar": jnp.int32(value),
            "half": jnp.array([1.5, 2.5], jnp.bfloat16),
            "key": jax.random.key(value),
            "count": value,
            "share": 0.1 * value,
            "done": value > 1,
        },
    )


def test_every_kind_of_leaf_comes_back_bit_for_bit(tmp_path):
    with opened(tmp_path / "c") as manager:
        checkpoint.save(manager, 1, tree(7))
    with opened(tmp_path / "c") as manager:
        step, back = checkpoint.restore(manager, tree(0))
    assert step == 1
    assert jax.tree.structure(back) == jax.tree.structure(tree(7))
    for old, new in zip(jax.tree.leaves(tree(7)), jax.tree.leaves(back), strict=True):
        assert type(old) is type(new)
        if isinstance(old, jax.Array) and jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
            old, new = jax.random.key_data(old), jax.random.key_data(new)
        assert np.asarray(old).dtype == np.asarray(new).dtype
        np.testing.assert_array_equal(old, new)


def test_within_a_step_there_may_be_several_each_after_some_time(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(due.time, "monotonic", lambda: now[0])
    with opened(tmp_path) as manager:
        paced = due.Paced(5.0)
        assert paced.due and not paced.overdue(30.0)  # there was nothing to keep so far
        now[0] += 30.0
        assert paced.overdue(30.0)
        for step, value in ((1, 10), (1, 11), (2, 20), (7, 70)):
            given = checkpoint.following(manager, step), {"a": value}
            paced.take(functools.partial(checkpoint.save, manager, *given))
        assert sorted(manager.all_steps()) == [3, 7]
        assert checkpoint.restore(manager, {"a": 0}) == (7, {"a": 70})
        assert not paced.due and not paced.overdue(0.0)
        now[0] += 5.0
        assert paced.due and not paced.overdue(30.0)
        now[0] += 25.0
        assert paced.overdue(30.0)


@pytest.mark.parametrize(("seconds", "wait"), [(0.0, 0.0), (1.0, 36.0), (100.0, 100.0)])
def test_they_take_a_tenth_of_the_time_unless_one_a_step_is_asked_for(monkeypatch, seconds, wait):
    now = [50.0]
    monkeypatch.setattr(due.time, "monotonic", lambda: now[0])
    paced = due.Paced(seconds)

    def store():
        now[0] += 4.0  # a large state

    paced.take(store)
    assert paced.due is (wait == 0.0)
    now[0] += 0.9 * wait
    assert paced.due is (wait == 0.0)
    now[0] += 0.1 * wait
    assert paced.due


def test_the_last_two_are_kept(tmp_path):
    with opened(tmp_path) as manager:
        for step in range(1, 5):
            checkpoint.save(manager, step, tree(step))
        assert sorted(manager.all_steps()) == [3, 4]


def test_a_step_before_the_newest_is_refused_and_the_newest_stays(tmp_path):
    """Orbax would keep neither of them, without a word."""
    with opened(tmp_path) as manager:
        checkpoint.save(manager, 3, tree(3))
        with pytest.raises(Failed, match="which has 3 already"):
            checkpoint.save(manager, 2, tree(2))
        checkpoint.save(manager, 3, tree(9))
        assert checkpoint.restore(manager, tree(0))[1].more["count"] == 3


def test_nothing_to_restore_is_none(tmp_path):
    with opened(tmp_path) as manager:
        assert checkpoint.restore(manager, tree(0)) is None


def flip_bits(folder: pathlib.Path) -> None:
    for path in folder.rglob("d/*"):
        content = bytearray(path.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 8] = bytes(255 - b for b in content[middle : middle + 8])
        path.write_bytes(content)


def truncate(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_data(folder):
    for path in list(folder.rglob("d")):
        shutil.rmtree(path, ignore_errors=True)


def empty_files(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


# Orbax leaves callbacks behind that fail when the reading of an array fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
DAMAGES = [flip_bits, truncate, remove_data, empty_files]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_with_a_warning(tmp_path, damage, caplog):
    with opened(tmp_path) as manager:
        for step in (1, 2, 3):
            checkpoint.save(manager, step, tree(step))
    damage(tmp_path / "3")
    with opened(tmp_path) as manager:
        with caplog.at_level(logging.WARNING, "fnas_jax"):
            step, back = checkpoint.restore(manager, tree(0))
        assert step == 2
        assert back.more["count"] == 2
        assert "checkpoint 3 is damaged" in caplog.text
        checkpoint.save(manager, 3, tree(3))  # the run comes to step 3 once more
    with opened(tmp_path) as manager:
        assert checkpoint.restore(manager, tree(0))[0] == 3


def test_the_folder_of_another_step_is_damage(tmp_path, caplog):
    with opened(tmp_path) as manager:
        for step in (1, 2):
            checkpoint.save(manager, step, tree(step), f"about {step}")
    shutil.rmtree(tmp_path / "2" / "default")
    shutil.copytree(tmp_path / "1" / "default", tmp_path / "2" / "default")
    with opened(tmp_path) as manager:
        step, back = checkpoint.restore(manager, tree(0))
    assert step == back.more["count"] == 1
    assert "checkpoint 2 is damaged (ValueError: it is of step 1)" in caplog.text


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "1" * 5_000, "[]", '{"commit_timestamp_nsecs": "x"}', '{"a": NaN}']
)
def test_a_damaged_date_of_a_checkpoint_costs_nothing_but_itself(tmp_path, content, caplog):
    """Orbax reads it of every step when it opens their folder, and raises what it likes."""
    with opened(tmp_path) as manager:
        for step in (1, 2):
            checkpoint.save(manager, step, tree(step))
    path = tmp_path / "1" / leftovers.DATE
    assert path.exists()
    path.write_text(content)
    with caplog.at_level(logging.WARNING, "fnas_jax"), opened(tmp_path) as manager:
        step, back = checkpoint.restore(manager, tree(0))
    assert step == 2 and back.more["count"] == 2
    assert "is damaged" in caplog.text or path.exists()  # Orbax passes over some by itself


def test_no_good_checkpoint_at_all_is_the_users_to_decide(tmp_path):
    with opened(tmp_path) as manager:
        checkpoint.save(manager, 1, tree(1))
    truncate(tmp_path / "1")
    with (
        opened(tmp_path) as manager,
        pytest.raises(UserError, match=r"no checkpoint in .* can be read") as error,
    ):
        checkpoint.restore(manager, tree(0))
    assert "\n" not in str(error.value)


def test_a_state_of_another_shape_is_refused(tmp_path):
    with opened(tmp_path) as manager:
        checkpoint.save(manager, 1, {"a": jnp.zeros(3)})
        with pytest.raises(UserError, match=r"leaf 0 is float32\(3,\)"):
            checkpoint.restore(manager, {"a": jnp.zeros(4)})


@pytest.mark.parametrize("other", [{}, {"a": jnp.zeros(3), "b": jnp.zeros(2)}])
def test_a_state_of_other_arrays_is_refused_and_kept(tmp_path, other):
    """Not taken for a damaged one, which would be deleted."""
    with opened(tmp_path) as manager:
        for step in (1, 2):
            checkpoint.save(manager, step, {"a": jnp.zeros(3)})
        with pytest.raises(UserError, match="go on with the version of fnas_jax that wrote it"):
            checkpoint.restore(manager, other)
        assert sorted(manager.all_steps()) == [1, 2]


def test_a_half_written_step_is_ignored(tmp_path):
    with opened(tmp_path) as manager:
        checkpoint.save(manager, 1, tree(1))
        checkpoint.save(manager, 2, tree(2))
    (tmp_path / "2").rename(tmp_path / "2.orbax-checkpoint-tmp")
    with opened(tmp_path) as manager:
        assert checkpoint.restore(manager, tree(0))[0] == 1
        checkpoint.save(manager, 2, tree(2))
        assert checkpoint.restore(manager, tree(0))[0] == 2


def test_smaller_arrays_take_the_first_places_where_the_template_has_grown(tmp_path):
    small = {"a": jnp.arange(3), "b": jnp.ones((2, 2)), "c": jnp.zeros((0, 2)), "n": 5}
    large = {"a": jnp.full(5, -1), "b": 7 * jnp.eye(3), "c": jnp.zeros((0, 2)), "n": 0}
    with contextlib.closing(checkpoint.open_(tmp_path)) as manager:
        checkpoint.save(manager, 1, small)
        with pytest.raises(UserError, match="no checkpoint"):
            checkpoint.restore(manager, large)
        _, back = checkpoint.restore(manager, large, grown=True)
        with pytest.raises(UserError, match="no checkpoint"):  # nothing ever shrinks
            checkpoint.restore(manager, {**large, "a": jnp.zeros(2, int)}, grown=True)
    np.testing.assert_array_equal(back["a"], [0, 1, 2, -1, -1])
    np.testing.assert_array_equal(back["b"], [[1, 1, 0], [1, 1, 0], [0, 0, 7]])
    assert back["n"] == 5


def test_what_a_killed_process_has_not_finished_is_removed_unless_others_write(tmp_path):
    unfinished = tmp_path / f"3{leftovers.UNFINISHED}" / "default"
    unfinished.mkdir(parents=True)
    checkpoint.open_(tmp_path, alone=False).close()
    assert unfinished.exists()
    checkpoint.open_(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_of_and_leaves_no_trace(tmp_path):
    with opened(tmp_path) as manager:
        checkpoint.save(manager, 1, tree(1))
        real = manager.save

        def full(step, **more):
            real(step, **more)
            (tmp_path / "2").rename(tmp_path / f"2{leftovers.UNFINISHED}")
            raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")

        manager.save, hook = full, sys.unraisablehook
        with pytest.raises(disk.Refused, match=f"disk of '{tmp_path}' is full"):
            checkpoint.save(manager, 2, tree(2))
        assert [path.name for path in tmp_path.iterdir()] == ["1"]
        assert sys.unraisablehook is hook


def test_the_last_checkpoint_is_due_before_the_process_ends():
    paced = due.Paced(1000.0)
    paced.take(lambda: None)
    assert not paced.due and not paced.overdue(30.0)
    with pytest.raises(signals.Stop), signals.handled(), signals.deferred():
        signal.raise_signal(signal.SIGTERM)
        assert paced.due and paced.overdue(30.0)
        signals.check()


def test_what_threads_find_when_a_checkpoint_cannot_be_read_is_not_told(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: told.append(str(found.exc_value)))
    hook = sys.unraisablehook

    class Found(NamedTuple):
        exc_value: Exception

    class Manager:
        def restore(self, step, args):
            sys.unraisablehook(Found(RuntimeError("Event loop is closed")))
            sys.unraisablehook(Found(RuntimeError("something else")))
            raise ValueError("damaged")

    with pytest.raises(ValueError, match="damaged"):
        checkpoint._whole(Manager(), 0)
    assert told == ["something else"] and sys.unraisablehook is hook

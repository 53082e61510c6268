"""Pools on disk: atomic, shared, and never mistaken for those of another space."""

import contextlib
import functools
import json
import multiprocessing
import pathlib
import pickle
import random
import shutil
import time
import zlib

import filelock
import jax
import numpy as np
import pytest

from fnas_jax.core import apart
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge import pool_store as stores
from fnas_jax.knowledge import taught
from fnas_jax.knowledge.pool_store import Store
from fnas_jax.knowledge.taught import Images
from fnas_jax.networks import elastic
from fnas_jax.spaces import cell, mnas
from tests.fuzz.test_images import npy_claiming
from tests.knowledge import pools as pools_of_tests
from tests.knowledge.pools import SPACES

# Orbax leaves callbacks behind that fail when the reading of an array fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

SPACE = cell.make(channels=2, cells_per_stage=1)
A, B = "a" * 32, "b" * 32


def store(folder, run=A, **changes):
    return Store(pathlib.Path(folder), SPACE, 1, 3, 4, run)._replace(**changes)


def layout(where):
    return layout_of(where.space, where.channels, where.classes)


@functools.cache
def layout_of(space, channels, classes):
    return pools.make_layout(elastic.make(space, channels, classes), space)


def fresh(where):
    """Arrays of its own for every test, by a program that they share."""
    of = where.space, where.channels, where.classes
    return fresh_of(*of, where.capacity)(jax.random.key(0))


@functools.cache
def fresh_of(space, channels, classes, capacity):
    return jax.jit(functools.partial(pools.init, layout_of(space, channels, classes), capacity))


def holding(pool, value, owner, slot=1, updates=1):
    """`pool` with one more block at each place: all numbers `value`, a descriptor of its own."""

    def add(entries):
        return entries._replace(
            params=entries.params.at[slot].set(value),
            descriptor=entries.descriptor.at[slot].set(value),
            size=entries.size.at[slot].set(5),
            updates=entries.updates.at[slot].set(updates),
            owner=entries.owner.at[slot].set(owner),
            valid=entries.valid.at[slot].set(True),
        )

    return pool._replace(blocks=tuple(add(entries) for entries in pool.blocks))


def values(pool):
    """The numbers that `holding` put there."""
    entries = pool.blocks[0]
    trained = np.asarray(entries.valid & (entries.updates > 0))
    return {float(p[0]) for p in np.asarray(entries.params)[trained]}


def load(where, reader="c" * 32):
    """What another run finds."""
    return stores.load(where._replace(run=reader), fresh(where))[0]


# Of pools that earlier versions have written: the space as pool.json has it, and a checksum over
# the types and shapes of all arrays in order.
BEFORE = {
    "mnas": (
        {"name": "mnas", "stem": 8, "head": 8, "channels": [[8, 8, 16]], "depths": [[1, 1, 2]]},
        4181040988,
    ),
    "macro": (
        {"name": "macro", "stages": [2, 3, 3], "channels": [8, 8, 8], "stem": 8, "head": 24}
        | {"expansions": [0, 3, 6], "kernels": [0, 3, 5]},
        1425333755,
    ),
    "cell": ({"name": "cell", "channels": 4, "cells_per_stage": 1, "stages": 3}, 3074242729),
}


@pytest.mark.parametrize("name", BEFORE)
def test_pools_that_earlier_versions_have_written_can_be_read(tmp_path, name):
    space, arrays = BEFORE[name]
    (tmp_path / "pool.json").write_text(json.dumps({"space": space, "versions": {}}))
    stores.check(store(tmp_path, space=SPACES[name]))  # is not taken for another space
    made = pools_of_tests.layout(name)  # kept for other tests, so not made while tracing
    shapes = jax.eval_shape(lambda: pools.init(made, 6, jax.random.key(0)))
    text = " ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(shapes))
    assert zlib.crc32(text.encode()) == arrays


def test_what_is_written_is_read_back(tmp_path):
    where = store(tmp_path / "deep" / "pool")
    start = fresh(where)
    jax.tree.map(np.testing.assert_array_equal, load(where), start)
    for value in (2.0, 3.0, 4.0):
        mine = holding(start, value, where.owner)
        got, seen = stores.sync(where, layout(where), mine, 0)
        jax.tree.map(np.testing.assert_array_equal, got, mine)
        assert seen == 0
    jax.tree.map(
        np.testing.assert_array_equal, load(where)._replace(counts=0), mine._replace(counts=0)
    )
    assert len(list((where.folder / "versions").iterdir())) == 2
    assert len(json.loads((where.folder / "pool.json").read_text())["versions"]) <= 3


def test_what_a_checkpoint_names_outlives_the_writes_of_other_runs(tmp_path):
    where, kept = store(tmp_path / "pool"), tmp_path / "pools"
    start = fresh(where)
    mine, _ = stores.sync(where, layout(where), holding(start, 2.0, where.owner), 0, kept / "7")
    version = apart.version_of(kept, 7)
    names = [path.name for path in (where.folder / "versions").iterdir()]
    assert str(version) in names
    other = store(tmp_path / "pool", B)
    for value in (3.0, 4.0):
        stores.sync(other, layout(other), holding(start, value, other.owner), version)
    assert not (where.folder / "versions" / str(version)).exists()
    jax.tree.map(np.testing.assert_array_equal, apart.read(kept, 7, version, start), mine)


def test_what_others_have_a_part_in_is_not_linked_beside_a_checkpoint(tmp_path):
    where, kept = store(tmp_path / "pool"), tmp_path / "pools"
    layout_, start = layout(where), fresh(where)
    other = store(tmp_path / "pool", B)
    stores.sync(other, layout_, holding(start, 3.0, other.owner), 0)
    got, _ = stores.sync(where, layout_, holding(start, 2.0, where.owner), 0, kept / "7")
    assert values(got) == values(load(where)) == {2.0, 3.0}
    assert apart.version_of(kept, 7) == apart.NONE
    # Also where the newest version is its own, which has them.
    got, _ = stores.sync(where, layout_, holding(start, 4.0, where.owner), 0, kept / "8")
    assert values(got) == {3.0, 4.0} and apart.version_of(kept, 8) == apart.NONE


def test_a_run_that_begins_anew_does_not_read_what_it_wrote_itself(tmp_path):
    where = store(tmp_path)
    layout_, start = layout(where), fresh(where)
    stores.sync(where, layout_, holding(start, 2.0, where.owner), 0)
    got, seen = stores.load(where, start)
    assert values(got) == set() and seen == 0
    stores.sync(store(tmp_path, B), layout_, holding(start, 3.0, store(tmp_path, B).owner), 0)
    got, seen = stores.load(where, start)
    assert values(got) == {3.0} and seen == 2


def test_searches_that_share_a_folder_lose_nothing(tmp_path):
    one, two = store(tmp_path), store(tmp_path, B)
    layout_, start = layout(one), fresh(one)
    mine, mine_seen = stores.sync(one, layout_, holding(start, 2.0, one.owner), 0)
    theirs, _ = stores.sync(two, layout_, holding(start, 3.0, two.owner), 0)
    assert values(theirs) == {2.0, 3.0}
    older = mine_seen
    mine, mine_seen = stores.sync(one, layout_, mine, mine_seen)
    assert values(mine) == {2.0, 3.0} and mine_seen == 2
    assert values(load(two)) == {2.0, 3.0}
    # What this run wrote and then forgot, as a resumed one does, does not return; others' does.
    again, _ = stores.sync(one, layout_, holding(start, 5.0, one.owner), older)
    assert values(again) == {3.0, 5.0}
    # What it knew and gave up does not come back each time.
    again, _ = stores.sync(one, layout_, holding(start, 6.0, one.owner), 2)
    assert values(again) == {6.0}


def test_a_damaged_newest_version_falls_back(tmp_path, caplog):
    where = store(tmp_path)
    layout_, start = layout(where), fresh(where)
    for value in (2.0, 3.0):
        stores.sync(where, layout_, holding(start, value, where.owner), 0)
    newest = max((tmp_path / "versions").iterdir(), key=lambda path: int(path.name))
    for arrays in list(newest.rglob("d")):
        shutil.rmtree(arrays, ignore_errors=True)
    assert values(load(where)) == {2.0}
    assert f"checkpoint {newest.name} is damaged" in caplog.text
    stores.sync(where, layout_, holding(start, 4.0, where.owner), 0)
    assert values(load(where)) == {4.0}


def test_another_number_of_places_takes_what_fits(tmp_path):
    where = store(tmp_path)
    layout_, start = layout(where), fresh(where)
    stores.sync(where, layout_, holding(holding(start, 2.0, 9), 3.0, 9, slot=2, updates=5), 0)
    small, large = store(tmp_path, capacity=1), store(tmp_path, B, capacity=6)
    assert values(load(small)) == {3.0}
    got, _ = stores.sync(large, layout_, holding(fresh(large), 7.0, large.owner), 0)
    assert values(got) == {2.0, 3.0, 7.0} and len(got.blocks[0].params) == 6


def test_other_images_get_their_own_stem_and_classifier(tmp_path):
    where = store(tmp_path)
    left = holding(fresh(where), 2.0, 9)
    left = left._replace(shared=jax.tree.map(lambda p: p + 9.0, left.shared))
    stores.sync(where, layout(where), left, 0)
    other = store(tmp_path, B, channels=2, classes=5)
    start = fresh(other)
    got, _ = stores.load(other, start)
    assert values(got) == {2.0}
    for name in ("stem", "classifier", "bias"):
        np.testing.assert_array_equal(got.shared[name], start.shared[name])
    for name in ("stem_norm", "last_norm", "reductions"):
        jax.tree.map(np.testing.assert_array_equal, got.shared[name], left.shared[name])


def test_a_pool_of_another_space_or_width_is_refused(tmp_path):
    where = store(tmp_path)
    stores.sync(where, layout(where), fresh(where), 0)
    for space, difference in (
        (cell.make(channels=4, cells_per_stage=1), "channels is 2 there and 4 here"),
        (cell.make(channels=2, cells_per_stage=2), "cells_per_stage is 1 there and 2 here"),
        (mnas.make(blocks=1), "name is cell there and mnas here"),
    ):
        other = store(tmp_path, space=space)
        synced = functools.partial(stores.sync, other, layout(where), seen=0)
        for call in (functools.partial(stores.load, other), synced):
            with pytest.raises(UserError, match=difference) as error:
                call(fresh(where))
            assert "\n" not in str(error.value)
    load(where)


@pytest.mark.parametrize(
    "changes",
    [{"blocks": 3}, {"width": 0.5}, {"stem": 16}, {"head": 64}],
    ids=lambda changes: next(iter(changes)),
)
def test_every_option_of_mnas_that_weights_depend_on_is_told_apart(tmp_path, changes):
    (tmp_path / "pool").mkdir()
    one = store(tmp_path / "pool", space=mnas.make(2))
    settings = one.space.spec._asdict().items()
    about = {"name": "mnas"} | {name: v for name, v in settings if name not in stores.FREE}
    (tmp_path / "pool" / "pool.json").write_text(json.dumps({"space": about, "versions": {}}))
    stores.check(one)
    with pytest.raises(UserError, match=r"of another space: \w+ is .* there and .* here"):
        stores.check(one._replace(space=mnas.make(**{"blocks": 2} | changes)))


def test_strides_are_no_difference(tmp_path):
    one, two = (mnas.make(1, 0.5, (stride,), 16, stride, 16) for stride in (1, 2))
    where = store(tmp_path, space=one)
    stores.sync(where, layout(where), holding(fresh(where), 2.0, 9), 0)
    other = store(tmp_path, space=two)
    assert values(load(other)) == {2.0}


def test_a_held_lock_is_said(tmp_path):
    where = store(tmp_path, lock_seconds=0.05)
    with (
        filelock.FileLock(tmp_path / ".lock"),
        pytest.raises(UserError, match=r"another process has held the pool .* for 0.05 s"),
    ):
        stores.load(where, fresh(where))


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    where = store(tmp_path / "file" / "pool")
    with pytest.raises(UserError, match="cannot be written"):
        stores.load(where, fresh(where))


def write(pipe, folder, run, value):
    """One version after another, each with another number in all its arrays."""
    where = store(folder, run)
    layout_ = layout(where)
    pool = pickle.loads((folder / "start").read_bytes())
    value = pipe.recv() if value is None else value
    while True:
        value += 1
        for entries in pool.blocks:
            entries.params[1], entries.descriptor[1] = value, value
            entries.owner[1] = where.owner
        pipe.send(("begun", value))
        stores.sync(where, layout_, pool, 0)
        pipe.send(("done", value))
        time.sleep(0.1)  # searches, too, do something in between


def writer(folder, run=A, first=None):
    """(a process that writes, the pipe by which it tells of it and hears of the last value)."""
    # Servers fork processes that have loaded the libraries, but started nothing of them.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    ours, theirs = context.Pipe()
    process = context.Process(target=write, args=(theirs, folder, run, first), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def begin(folder):
    """What writers start from: a block at place 1, in arrays that can be written."""
    where = store(folder)
    start = fresh(where)
    pool = jax.tree.map(np.array, holding(start, 0.0, 1))
    (folder / "start").write_bytes(pickle.dumps(pool))
    return where


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.slow)])
def test_kill_9_at_any_moment_leaves_a_version_that_was_written(tmp_path, kills):
    """The pool opens after each kill, with the last finished version or the one begun."""
    where = begin(tmp_path)
    rng, last, following = random.Random(0), 0.0, writer(tmp_path)
    for _ in range(kills):
        # The next one makes itself ready while this one writes.
        (process, pipe), following = following, writer(tmp_path)
        pipe.send(last)
        told = [pipe.recv() for _ in range(1 + 2 * rng.randrange(2))]
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                told.append(pipe.recv())
        finished = [value for word, value in told if word == "done"]
        begun = [value for word, value in told if word == "begun"]
        found = load(where)
        got = max(values(found), default=0.0)
        assert got in (max([last, *finished]), begun[-1])
        assert got == 0.0 or all((entries.params[1] == got).all() for entries in found.blocks)
        last = got
    following[0].kill()
    assert last > kills / 4


@pytest.mark.slow
def test_two_processes_at_once_keep_both_their_blocks(tmp_path):
    where = begin(tmp_path)
    writers = [writer(tmp_path, A, 100.0), writer(tmp_path, B, 500.0)]
    for _, pipe in writers:
        while pipe.recv()[0] != "done":
            pass
        while pipe.recv()[0] != "done":
            pass
    for process, _ in writers:
        process.kill()
        process.join()
    got = values(load(where))
    assert any(100 < v < 500 for v in got) and any(v > 500 for v in got)


def named(*parts):
    """The names of training, validation and test images."""
    return Images(*(np.asarray(part, np.uint64) for part in parts))


def taught_by(folder, run, *parts):
    """A search on these images has left something in the pool."""
    where = store(folder, run, images=named(*parts))
    _, seen = stores.load(where, fresh(where))
    stores.sync(where, layout(where), holding(fresh(where), 2.0, where.owner), seen)


def test_a_pool_that_test_images_have_taught_is_refused(tmp_path):
    taught_by(tmp_path, A, [1, 2, 3], [4], [5])
    taught_by(tmp_path, B, [1, 2, 6], [3], [5])  # tests on the same
    same = store(tmp_path, "c" * 32, images=named([1, 2, 3], [4], [5, 7]))
    assert values(stores.load(same, fresh(same))[0]) == {2.0}
    for test, count in (([3, 5], 1), ([6, 9, 1], 2)):  # of either of both
        other = store(tmp_path, "d" * 32, images=named([2, 4], [5], test))
        synced = functools.partial(stores.sync, other, layout(other), seen=0)
        loaded = functools.partial(stores.load, other)
        for call in (lambda _: stores.check(other), loaded, synced):  # noqa: B023
            with pytest.raises(UserError, match=f"^{count} of the {len(test)} test images") as e:
                call(fresh(other))
            assert "use another knowledge.dir, or akp.enabled=False" in str(e.value)
            assert "\n" not in str(e.value)
    # Who was refused has taught nothing.
    last = store(tmp_path, "e" * 32, images=named([1], [2], [4]))
    assert values(stores.load(last, fresh(last))[0]) == {2.0}


def test_images_that_a_set_holds_on_both_sides_are_no_reason(tmp_path):
    taught_by(tmp_path, A, [1, 2, 3], [4], [3, 5])
    again = store(tmp_path, B, images=named([1, 2, 3], [4], [3, 5]))
    assert values(stores.load(again, fresh(again))[0]) == {2.0}


def test_validation_images_that_have_taught_the_pool_are_said(tmp_path, caplog):
    taught_by(tmp_path, A, [1, 2, 3], [4], [5])
    other = store(tmp_path, B, images=named([1, 4], [2, 3], [5]))
    assert values(stores.load(other, fresh(other))[0]) == {2.0}
    assert "2 of the validation images have taught the pool" in caplog.text


def test_images_teach_from_the_start_of_a_search(tmp_path):
    """Of two that begin on an empty pool, the second hears of it before it has trained."""
    one = store(tmp_path, images=named([1, 2], [], [3]))
    stores.load(one, fresh(one))
    two = store(tmp_path, B, images=named([3], [], [2]))
    with pytest.raises(UserError, match="1 of the 1 test images"):
        stores.load(two, fresh(two))


def test_a_search_whose_pool_was_spoilt_meanwhile_goes_on_without_it(tmp_path, caplog):
    one = store(tmp_path, images=named([1, 2], [], [3, 4]))
    layout_, start = layout(one), fresh(one)
    _, seen = stores.load(one, start)
    mine, seen = stores.sync(one, layout_, holding(start, 5.0, one.owner), seen)
    taught_by(tmp_path, B, [1, 3], [], [9])
    about = (tmp_path / "pool.json").read_text()
    stores.check(one)  # a resumed run is not refused
    got, still = stores.sync(one, layout_, mine, seen)
    jax.tree.map(np.testing.assert_array_equal, got, mine)
    assert still == seen and "goes on without that pool" in caplog.text
    jax.tree.map(np.testing.assert_array_equal, stores.load(one, start), (start, 0))
    assert (tmp_path / "pool.json").read_text() == about  # nothing was written


def test_a_pool_without_names_of_its_teachers_is_said_whoever_writes_next(tmp_path, caplog):
    taught_by(tmp_path, A, [1], [2], [3])
    (tmp_path / taught.FILE).unlink()
    about = json.loads((tmp_path / "pool.json").read_text())
    del about["runs"]
    (tmp_path / "pool.json").write_text(json.dumps(about))
    taught_by(tmp_path, B, [1], [2], [3])
    assert "did not write down the images that taught it" in caplog.text
    assert json.loads((tmp_path / "pool.json").read_text())["untold"] is True


def test_a_damaged_list_of_teachers_is_said(tmp_path):
    taught_by(tmp_path, A, [1], [2], [3])
    where = store(tmp_path, B)
    for content in (b"\x93NUMPY", npy_claiming((2**40,), "<u8")):
        (tmp_path / taught.FILE).write_bytes(content)
        with pytest.raises(UserError, match=r"taught\.npy' cannot be read"):
            stores.load(where, fresh(where))


def test_a_pool_of_another_objective_is_refused(tmp_path):
    """Its blocks have learnt something else; pools that say none are of classes."""
    of_values = store(tmp_path, objective="regression")
    stores.sync(of_values, layout(of_values), fresh(of_values), 0)
    stores.check(of_values)
    with pytest.raises(UserError, match=r"of networks for task.objective=regression, and here it"):
        stores.check(store(tmp_path))
    about = json.loads((tmp_path / "pool.json").read_text())
    del about["objective"]
    (tmp_path / "pool.json").write_text(json.dumps(about))
    stores.check(store(tmp_path))
    with pytest.raises(UserError, match=r"of networks for task.objective=classification"):
        stores.check(of_values)


def test_a_pool_of_a_later_format_is_refused_and_of_the_one_before_taken(tmp_path):
    where = store(tmp_path)
    stores.sync(where, layout(where), holding(fresh(where), 1.0, where.owner), 0)
    path = tmp_path / "pool.json"
    about = json.loads(path.read_text())
    assert about.pop("format") == stores.FORMAT
    path.write_text(json.dumps(about))  # as the version before wrote it
    stores.check(store(tmp_path))
    for number in (stores.FORMAT, stores.FORMAT + 1):
        path.write_text(json.dumps(about | {"format": number}))
        if number == stores.FORMAT:
            stores.check(store(tmp_path))
            continue
        with pytest.raises(UserError, match="written by a later version"):
            stores.check(store(tmp_path))


@pytest.mark.parametrize("left", ["none", "of before"])
def test_versions_that_the_description_does_not_know_are_told(tmp_path, left):
    """Also to a search that runs: what it would write could not be read."""
    where, path = store(tmp_path), tmp_path / "pool.json"
    known = {"1": {"run": A, "seen": 0, "channels": 1, "classes": 3, "capacity": 1}}
    about = stores._describe(where) | {"versions": known}
    for version in ("1", "2"):
        (tmp_path / "versions" / version).mkdir(parents=True)
    if left == "of before":
        path.write_text(json.dumps(about))
    unknown = "1" if left == "none" else "2"
    loaded = functools.partial(stores.load, fresh=None)
    synced = functools.partial(stores.sync, layout=None, mine=None, seen=0)
    for call in (stores.check, loaded, synced):
        with pytest.raises(UserError, match=rf"says nothing of version {unknown} .* put the one"):
            call(where)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "it holds list, no object"),
        ("null", "it holds NoneType, no object"),
        ("{}", "it has no 'space'"),
        ('{"space": {"name": "cell"}, "versions": []}', "its 'versions' is \\[\\]"),
        ('{"space": {"name": "cell"}, "versions": {"1": {}}}', "it has no 'run'"),
    ],
)
def test_a_damaged_description_is_told(tmp_path, content, told):
    (tmp_path / "pool.json").write_text(content)
    with pytest.raises(UserError, match=rf"pool\.json' is damaged: .*{told}"):
        stores.check(store(tmp_path))

"""What a checkpoint holds and what stands beside it, on the small task of the loop's tests."""

import contextlib
import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import loop
from fnas_jax.core import apart, checkpoint, due
from fnas_jax.tasks.base import Apart, Hooks
from tests import test_loop
from tests.killing import killed_behind
from tests.test_loop import EVALUATOR, METHOD, TASK, Crash, config_with, rows_of, timeless

SIZE = 50_000  # numbers in a pool
NOISE = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)  # no zeros, which take none


def pooled(folder, linked=True):
    """An evaluator whose pool makes readings rise, and a store that keeps its last version."""

    def learning(state, archs, mask, key):
        seen, metrics = test_loop.evaluate(state["seen"], archs, mask, key)
        pool = state["pool"] + 0.01 * metrics.accuracy.mean()
        better = metrics.accuracy + 0.1 * (pool - NOISE).mean()
        return {"seen": seen, "pool": pool}, metrics._replace(accuracy=better, reward=better)

    def sync(state, into):
        versions = folder / "versions"
        with contextlib.closing(checkpoint.open_(versions, keep=1)) as manager:
            version = 1 + max(manager.all_steps(), default=0)
            checkpoint.save(manager, version, state["pool"])
        if linked:
            assert apart.link(versions / str(version), into)
        return state

    hooks = Hooks(
        sync=sync, apart=Apart(lambda state: state["pool"], lambda s, pool: s | {"pool": pool})
    )
    first = lambda: {"seen": jnp.zeros(64, bool), "pool": jnp.asarray(NOISE)}  # noqa: E731
    return EVALUATOR._replace(init=first, evaluate=learning, hooks=hooks)


def saving_all(folder, method, evaluator, config):
    """The result of a run that takes a checkpoint every iteration, however long it takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(due.Paced, "due", True)
        return loop.run(config, folder, lambda c, k: (TASK, method, evaluator))


def search(folder, **changes):
    return saving_all(folder, METHOD, pooled(folder, **changes), config_with(search__budget=12))


def bytes_of(*folders):
    """On disk, every file once however many names it has."""
    found = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                found[path.stat().st_ino] = path.stat().st_size
    return sum(found.values())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pooled")
    return folder, search(folder)


def test_a_pool_that_the_store_holds_is_on_disk_once(undisturbed):
    folder, _ = undisturbed
    assert bytes_of(folder / "checkpoints") < 2 * SIZE  # of two, without 4 bytes a number
    steps = {path.name for path in (folder / "checkpoints").iterdir()}
    assert {path.name for path in (folder / "pools").iterdir()} == steps
    # Two versions: the store keeps the last one only, checkpoints are of the last two.
    assert bytes_of(folder / "pools", folder / "versions") < 2.5 * 4 * SIZE
    assert bytes_of(folder / "versions") > 0.8 * 4 * SIZE


def test_where_there_are_no_links_the_pool_is_written_beside_the_checkpoint(undisturbed, tmp_path):
    assert timeless(search(tmp_path, linked=False)) == timeless(undisturbed[1])
    assert bytes_of(tmp_path / "pools") > 2 * 0.8 * 4 * SIZE


@pytest.mark.parametrize("place", ["before link", "after link", "before prune"])
def test_a_kill_between_pool_and_checkpoint_changes_nothing(
    undisturbed, tmp_path, monkeypatch, place
):
    """Though the store has lost the version that the checkpoint before names."""
    owner, name, after = {
        "before link": (apart, "link", False),
        "after link": (apart, "link", True),
        "before prune": (apart, "prune", False),
    }[place]
    real, left = getattr(owner, name), [3 if name == "link" else 5]

    def killed(*args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            if after:
                real(*args, **kwargs)
            raise Crash
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, killed)
    with pytest.raises(Crash):
        search(tmp_path)
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "versions")
    result = search(tmp_path)
    assert timeless(result) == timeless(undisturbed[1]) and result["resumed"] == 1
    assert rows_of(tmp_path) == rows_of(undisturbed[0])


def test_a_checkpoint_whose_pool_is_damaged_gives_way_to_the_one_before(undisturbed, tmp_path):
    with killed_behind(6, Crash):
        search(tmp_path)
    steps = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    for path in (tmp_path / "pools" / str(steps[-1])).rglob("*"):
        if path.is_file():
            path.unlink()  # and not emptied: the store has the same file
    assert timeless(search(tmp_path)) == timeless(undisturbed[1])
    assert rows_of(tmp_path) == rows_of(undisturbed[0])


def test_weights_of_a_method_are_in_its_checkpoints_once(tmp_path, monkeypatch):
    """A method trains, its evaluator judges with the same numbers: also after a kill."""

    def prepare(state, key):
        for done in range(int(state["ready"]), 2):
            weights = state["weights"] + jax.random.normal(jax.random.fold_in(key, done), (SIZE,))
            state = state | {"ready": jnp.int32(done + 1), "weights": weights}
            yield state, {"loss": 1.0}

    def judging(state, archs, mask, key):
        seen, metrics = test_loop.evaluate(state["seen"], archs, mask, key)
        better = metrics.accuracy + jnp.abs(state["weights"]).mean()
        return state | {"seen": seen}, metrics._replace(accuracy=better, reward=better)

    def tell(state, proposal, metrics):
        return METHOD.tell(state, proposal, metrics) | {"weights": state["weights"]}

    put = lambda state, weights: state | {"weights": weights}  # noqa: E731
    hooks = Hooks(
        apart=Apart(lambda state: state["weights"], put),
        load_weights=lambda state, method: put(state, method["weights"]),
    )
    blank = lambda: {"seen": jnp.zeros(64, bool), "weights": jnp.zeros(SIZE)}  # noqa: E731
    evaluator = EVALUATOR._replace(init=blank, evaluate=judging, hooks=hooks)
    method = METHOD._replace(
        init=lambda key: METHOD.init(key) | {"weights": jnp.zeros(SIZE)}, tell=tell, prepare=prepare
    )

    def run(folder):
        return saving_all(folder, method, evaluator, config_with())

    whole = run(tmp_path / "whole")
    assert bytes_of(tmp_path / "whole" / "checkpoints") < 2.5 * 4 * SIZE  # two of them
    assert not (tmp_path / "whole" / "pools").exists()
    for n in range(1, 5):
        real, left = checkpoint.save, [n]

        def save(*args, real=real, left=left):
            real(*args)
            left[0] -= 1
            if left[0] == 0:
                raise Crash

        monkeypatch.setattr(checkpoint, "save", save)
        with pytest.raises(Crash):
            run(tmp_path / str(n))
        monkeypatch.undo()
        if n == 4:  # the stage is over: weights are taken from the checkpoint
            steps = sorted(os.listdir(tmp_path / "4" / "checkpoints"))
            wrong = hooks._replace(load_weights=lambda state, method: put(state))
            with pytest.raises(TypeError, match="missing 1 required"):  # not told as damage
                saving_all(tmp_path / "4", method, evaluator._replace(hooks=wrong), config_with())
            assert sorted(os.listdir(tmp_path / "4" / "checkpoints")) == steps
        assert timeless(run(tmp_path / str(n))) == timeless(whole)

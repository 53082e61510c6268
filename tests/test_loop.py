"""The loop on a small in-test task: what it writes, and that a crash anywhere leaves no trace."""

import contextlib
import errno
import functools
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import loop, registry, stepping
from fnas_jax.core import checkpoint, due, exits, signals, stages
from fnas_jax.core import config as config_lib
from fnas_jax.core import logging as log_lib
from fnas_jax.core.pace import Mark
from fnas_jax.core.progress import Progress
from fnas_jax.core.types import Metrics, UserError, propose
from fnas_jax.knowledge import history, pool_store, task_data
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.objectives import classification
from fnas_jax.spaces import categorical
from fnas_jax.tasks.base import Evaluator, Finals, Hooks, Judged, Task, TrainedNetwork
from tests.core.test_logging import events

SPACE = categorical.make((4, 4, 4))
BATCH = 4


def accuracy(archs):
    """1 for (2, 2, 2), less the farther away."""
    return 1 - jnp.mean((archs - 2.0) ** 2, axis=-1) / 4


def evaluate(known, archs, mask, key):
    index = archs @ jnp.array([16, 4, 1])
    fresh = mask & ~known[index]
    nan = jnp.full(len(archs), jnp.nan)
    value = jnp.where(mask, accuracy(archs) + 0.01 * jax.random.normal(key, mask.shape), 0.0)
    ok = mask & (index != 0)  # (0, 0, 0) always fails
    value = jnp.where(ok, value, 0.0)
    metrics = Metrics(value, value, nan, archs.sum(1) * 1.0, nan, 0 * nan, ok, fresh)
    return known.at[index].max(mask), metrics


def ask(state, key):
    proposal = propose(SPACE.sample(key, BATCH))
    predicted = jnp.full(BATCH, 0.25)
    # The last of a batch is predicted, not trained.
    mask = proposal.train_mask.at[-1].set(False)
    return state, proposal._replace(train_mask=mask, predicted=predicted)


def tell(state, proposal, metrics):
    reward = jnp.where(metrics.ok, metrics.reward, -jnp.inf)
    i = reward.argmax()
    better = reward[i] > state["best"].reward
    best = jax.tree.map(
        lambda new, old: jnp.where(better, new, old),
        Best(proposal.archs[i], reward[i]),
        state["best"],
    )
    return {"best": best, "told": state["told"] + 1, "ready": state["ready"]}


METHOD = SearchMethod(
    init=lambda key: {
        "best": Best(jnp.zeros(3, jnp.int32), jnp.float32(-jnp.inf)),
        "told": jnp.int32(0),
        "ready": jnp.int32(0),
    },
    ask=ask,
    tell=tell,
    best=lambda state: state["best"],
    stats=lambda state: {"told": state["told"], "replayed": jnp.int32(2)},
)


def prepare(state, key):
    for done in range(int(state["ready"]), 3):
        yield state | {"ready": jnp.int32(done + 1)}, {"loss": 1.0 / (done + 1)}


EVALUATOR = Evaluator(lambda: jnp.zeros(64, bool), evaluate, jittable=True)


def final(arch, key):
    noise = float(jax.random.normal(key))
    found = {"accuracy": float(accuracy(jnp.asarray(arch))), "noise": noise, "seconds": 0.1}
    return Judged(found)


TASK = Task("tabular/quadratic", SPACE, EVALUATOR, final)


def build(config, knowledge, method=METHOD, task=TASK):
    return task, method, EVALUATOR


def config_with(**changes):
    base = {"search.budget": 6, "jax.cache_dir": "", "log.checkpoint_seconds": 0.0}
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return config_lib.nest(config_lib.flatten(config_lib.default()) | base | changes)


def rows_of(folder):
    with contextlib.closing(history.open_(folder / "knowledge")) as store:
        fields = "iteration, position, decisions, trained, ok, accuracy, reward, mflops"
        found = store.execute(f"SELECT {fields} FROM evaluations ORDER BY 1, 2").fetchall()
        assert store.execute("SELECT count(DISTINCT run) FROM evaluations").fetchone() == (1,)
    return found


def lines_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith("seconds/")} for line in lines]


def timeless(result):
    return {k: v for k, v in result.items() if k not in ("seconds", "resumed")}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    result = loop.run(config_with(), folder, build)
    return folder, result


def test_result_holds_what_is_documented(undisturbed):
    folder, result = undisturbed
    assert result == json.loads((folder / "result.json").read_text())
    assert set(result) == {
        *("best", "finalists", "winner", "counts", "iterations", "seconds", "images", "method"),
        "space",
        *("task", "seed", "versions", "resumed", "pareto", "metric", "target", "simulated_seconds"),
    }
    assert set(result["best"]) == {
        *("arch", "description", "accuracy", "reward", "latency_ms", "mflops", "params_m"),
        "value",
    }
    assert set(result["seconds"]) == {"total", "compile", "children", "method", "disk"}
    assert result["best"]["mflops"] == sum(result["best"]["arch"])
    assert result["best"]["latency_ms"] is None
    assert result["winner"]["accuracy"] == pytest.approx(
        float(accuracy(jnp.array(result["best"]["arch"])))
    )
    assert result["resumed"] == 0
    assert result["finalists"] == [] and result["counts"]["finalists"] == 0  # a table has none


def test_counts_history_and_metrics_agree(undisturbed):
    folder, result = undisturbed
    counts, rows, lines = result["counts"], rows_of(folder), lines_of(folder)
    assert counts["trained"] >= 6
    assert sum(row[3] for row in rows) == counts["trained"]
    assert sum(1 - row[3] for row in rows) == counts["predicted"] == result["iterations"]
    assert counts["replayed"] == 2 * result["iterations"]
    assert [line["step"] for line in lines] == list(range(result["iterations"]))
    assert lines[-1]["trained"] == counts["trained"]
    assert lines[-1]["told"] == result["iterations"]
    assert max(row[6] for row in rows if row[3]) == pytest.approx(result["best"]["reward"])
    decisions = [row[2] for row in rows if row[3]]
    assert len(set(decisions)) == len(decisions)
    assert {tuple(p["arch"]) for p in result["pareto"]} <= {tuple(json.loads(d)) for d in decisions}
    accuracies, mflops = ([p[name] for p in result["pareto"]] for name in ("accuracy", "mflops"))
    assert accuracies[0] == max(row[5] for row in rows if row[3])
    assert accuracies == sorted(accuracies, reverse=True)
    assert mflops == sorted(mflops, reverse=True)  # what costs more is better


def test_the_result_is_reported_in_the_form_that_was_evaluated(undisturbed, tmp_path):
    """The task and the evaluator get what was asked; files say what it is the same as."""
    judged = []
    evaluator = EVALUATOR._replace(
        form=lambda archs: 3 - archs,
        hooks=Hooks(
            finalize=lambda state, arch, key: Judged({"asked": judged.append(arch) or arch})
        ),
    )
    build = lambda config, knowledge: (TASK, METHOD, evaluator)  # noqa: E731
    result = loop.run(config_with(), tmp_path, build)
    asked = undisturbed[1]["best"]["arch"]
    assert result["best"]["arch"] == [3 - a for a in asked]
    assert result["best"]["description"] == SPACE.describe(np.array(result["best"]["arch"]))
    assert result["winner"]["asked"] == asked == judged[0].tolist()
    rows = [json.loads(row[2]) for row in rows_of(tmp_path)]
    mirrored = [[3 - a for a in json.loads(row[2])] for row in rows_of(undisturbed[0])]
    assert rows == mirrored


def test_a_seed_is_a_run(undisturbed, tmp_path):
    _, result = undisturbed
    assert timeless(loop.run(config_with(), tmp_path / "same", build)) == timeless(result)
    other = loop.run(config_with(seed=1), tmp_path / "other", build)
    assert other["best"] != result["best"]


class Crash(BaseException):
    """Stands for a killed process: nothing may catch it."""


@pytest.fixture
def effects(monkeypatch):
    """Counts what a run does to the disk, and crashes after the n-th of these."""
    control = {"left": None, "names": []}

    def watch(owner, name):
        real = getattr(owner, name)

        def effect(*args, **kwargs):
            value = real(*args, **kwargs)
            control["names"].append(name)
            if control["left"] is not None:
                control["left"] -= 1
                if control["left"] == 0:
                    raise Crash
            return value

        monkeypatch.setattr(owner, name, effect)

    watch(history, "record")
    watch(log_lib.MetricLog, "write")
    watch(checkpoint, "save")
    watch(loop, "write_json")
    return control


PREPARED = METHOD._replace(prepare=prepare)


def prepare_in_parts(state, key):
    """Three steps of the stage, of two parts each; what is logged needs both."""
    for done in range(int(state["ready"]), 6):
        total = jnp.where(done % 2 == 0, 0, state["told"]) + done
        state = state | {"ready": jnp.int32(done + 1), "told": jnp.int32(total)}
        yield state, {"sum": int(total), "text": ""} if done % 2 else {"text": ": half"}


IN_PARTS = METHOD._replace(prepare=prepare_in_parts)


@pytest.mark.parametrize(
    ("method", "seconds"),
    [
        pytest.param(METHOD, 0.0, marks=pytest.mark.slow, id="plain"),  # the next, less its stage
        pytest.param(PREPARED, 0.0, marks=pytest.mark.slow, id="prepared"),  # less its parts
        pytest.param(IN_PARTS, 0.0, id="parts"),
        pytest.param(METHOD, 1000.0, id="rare checkpoints"),
    ],
)
def test_a_crash_after_any_write_changes_nothing(effects, tmp_path, monkeypatch, method, seconds):
    if method is IN_PARTS:  # each of which is kept, however long that takes
        monkeypatch.setattr(loop.keeping, "LEAST_SECONDS", 0.0)
        monkeypatch.setattr(due.Paced, "due", property(lambda self: True))

    def run(folder):
        config = config_with(log__checkpoint_seconds=seconds)
        return loop.run(config, folder, lambda c, k: build(c, k, method))

    whole = run(tmp_path / "whole")
    writes = list(effects["names"])
    assert writes[-4:] == ["record", "write", "save", "write_json"]
    if method is IN_PARTS:  # of the three steps of the stage, each half is kept, and none logged
        assert writes[:9] == ["save", "write", "save"] * 3
        assert [line["sum"] for line in lines_of(tmp_path / "whole")[:3]] == [1, 5, 9]
    for n in range(1, len(writes) + 1):
        folder = tmp_path / str(n)
        effects["left"] = n
        with pytest.raises(Crash):
            run(folder)
        effects["left"] = None
        result = run(folder)
        assert timeless(result) == timeless(whole), f"crash after write {n}, {writes[n - 1]}"
        assert result["resumed"] == (1 if n < len(writes) else 0)
        assert rows_of(folder) == rows_of(tmp_path / "whole")
        assert lines_of(folder) == lines_of(tmp_path / "whole")


@pytest.mark.parametrize(
    ("place", "number", "seconds"),
    [
        ("history", signal.SIGTERM, 0.0),
        ("metrics", signal.SIGINT, 1000.0),
        ("checkpoint", signal.SIGINT, 0.0),
        ("prepare", signal.SIGTERM, 1000.0),
    ],
)
def test_a_search_that_a_signal_ends_takes_a_checkpoint_first(
    place, number, seconds, undisturbed, tmp_path, monkeypatch, capsys
):
    """Wherever the signal comes, all that was done before it is on disk."""
    owner, name = {
        "history": (history, "record"),
        "metrics": (log_lib.MetricLog, "write"),
        "checkpoint": (checkpoint, "save"),
        "prepare": (loop, "run_stages"),
    }[place]
    real, sent = getattr(owner, name), []

    def effect(*args):
        if not sent and (tmp_path / "metrics.jsonl").exists():
            sent.append(os.kill(os.getpid(), number))
        return real(*args)

    monkeypatch.setattr(owner, name, effect)
    config = config_with(log__checkpoint_seconds=seconds)
    search = functools.partial(loop.run, config, tmp_path, build)
    assert exits.run_command(search, signals.GOES_ON) == 128 + number
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"stopped by {signals.NAMES[number]}; the same command goes on from here"
    with contextlib.closing(checkpoint.open_(tmp_path / "checkpoints")) as manager:
        assert manager.latest_step() == len(lines_of(tmp_path))  # of all that is logged
    monkeypatch.setattr(owner, name, real)
    assert timeless(search()) == timeless(undisturbed[1])
    assert rows_of(tmp_path) == rows_of(undisturbed[0])
    assert lines_of(tmp_path) == lines_of(undisturbed[0])


@pytest.mark.parametrize(
    ("place", "number", "words"),
    [
        ("record", errno.ENOSPC, "full"),
        ("write", errno.EROFS, "read-only"),
        ("save", errno.ENOSPC, "full"),
        ("write_json", errno.EROFS, "read-only"),
    ],
)
def test_a_search_whose_disk_refuses_goes_on_when_it_does_not(
    place, number, words, undisturbed, tmp_path, monkeypatch, capsys
):
    owner = {"record": history, "write": log_lib.MetricLog, "save": checkpoint}.get(place, loop)
    real, left = getattr(owner, place), [2]

    def effect(*args):
        left[0] -= 1
        if left[0] == 0 or owner is loop:
            raise OSError(number, os.strerror(number), str(tmp_path / "x"))
        return real(*args)

    monkeypatch.setattr(owner, place, effect)
    search = functools.partial(loop.run, config_with(), tmp_path, build)
    assert exits.run_command(search) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: the disk of {str(tmp_path / 'x')!r} is {words}; the same comm")
    monkeypatch.setattr(owner, place, real)
    assert timeless(search()) == timeless(undisturbed[1])
    assert rows_of(tmp_path) == rows_of(undisturbed[0])
    assert lines_of(tmp_path) == lines_of(undisturbed[0])


def test_the_seconds_of_disks_go_on_after_a_resume_and_details_are_logged(tmp_path):
    method = METHOD._replace(details=lambda state: {"policy": jnp.ones((1, 3)) / 3})
    loop.run(config_with(search__budget=6), tmp_path, lambda c, k: (TASK, method, EVALUATOR))
    metrics = tmp_path / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert all(line["seconds/disk"] > 0 for line in lines)
    assert all(line["policy"] == [[0.3333] * 3] for line in lines)
    changed = [json.dumps(line | {"seconds/disk": 1000.0}) + "\n" for line in lines]
    metrics.write_text("".join(changed))
    result = loop.run(config_with(search__budget=9), tmp_path, build)
    assert json.loads(metrics.read_text().splitlines()[-1])["seconds/disk"] > 1000
    assert result["seconds"]["disk"] > 1000


def test_what_was_kept_of_batches_goes_with_the_next_checkpoint(tmp_path):
    """Not before: what a restored state has not seen is trained again."""
    kept, seen = tmp_path / "training" / "children-0f--1e", []

    def keeping_batches(state, archs, mask, key):
        seen.append(kept.exists())
        kept.mkdir(parents=True, exist_ok=True)
        return evaluate(state, archs, mask, key)

    def final(arch, key):
        seen.append(kept.exists())
        return Judged({})

    evaluator = EVALUATOR._replace(evaluate=keeping_batches, jittable=False)
    config = config_with(search__budget=12, log__checkpoint_seconds=1000.0)
    parts = TASK._replace(final=final), METHOD, evaluator
    loop.run(config, tmp_path, lambda c, k: parts)
    # There is a checkpoint after the first iteration, and after the last one.
    assert seen[:3] == [False, False, True] and seen[-1] is False


def shared_pool(folder):
    """(an evaluator whose accuracies rise with what it knows, which it shares with `folder`)"""

    def initial():
        known = float((folder / "pool").read_text()) if (folder / "pool").exists() else 0.0
        return jnp.zeros(64, bool), jnp.float32(known)

    def learning(state, archs, mask, key):
        seen, metrics = evaluate(state[0], archs, mask, key)
        better = metrics.accuracy + 0.01 * state[1]
        return (seen, state[1] + 1), metrics._replace(accuracy=better, reward=better)

    def sync(state, into):
        """A store that hands everyone all that was written, also by the run itself."""
        (folder / "pool").write_text(str(float(state[1])))
        return state

    return EVALUATOR._replace(init=initial, evaluate=learning, hooks=Hooks(sync=sync))


def test_a_kill_between_a_write_of_the_pool_and_its_checkpoint_changes_nothing(
    tmp_path, monkeypatch
):
    """Also before the first one: what the run itself has learnt is not what it started from."""

    def run(folder):
        folder.mkdir(exist_ok=True)
        evaluator = shared_pool(folder)
        config = config_with(search__budget=12)
        return loop.run(config, folder, lambda c, k: (TASK, METHOD, evaluator))

    whole, real = run(tmp_path / "whole"), checkpoint.save
    assert whole["iterations"] > 2
    for n in range(1, whole["iterations"] + 1):
        folder, left = tmp_path / str(n), [n]

        def save(manager, step, state, about, left=left):
            if step:  # before the others, the pool was written
                left[0] -= 1
                if left[0] == 0:
                    raise Crash
            real(manager, step, state, about)

        monkeypatch.setattr(checkpoint, "save", save)
        for _ in range(2):  # killed at the same place once more, where it is the first
            left[0] = n if left[0] <= 0 else left[0]
            with contextlib.suppress(Crash):
                run(folder)
            if n > 1:
                break
        monkeypatch.setattr(checkpoint, "save", real)
        assert (folder / "pool").exists()
        assert timeless(run(folder)) == timeless(whole)
        assert rows_of(folder) == rows_of(tmp_path / "whole")


def drifting(calls=None, fails=False):
    """An evaluator whose readings rise with every batch, and that holds finals without the rise.

    Its state: what is known, batches so far, and the first rewards of all 64 networks.
    """
    index = lambda archs: archs @ jnp.array([16, 4, 1])  # noqa: E731

    def rising(state, archs, mask, key):
        known, batches, rewards = state
        known, metrics = evaluate(known, archs, mask, key)
        reward = jnp.where(metrics.ok, metrics.reward + 0.5 * batches, 0.0)
        place = jnp.where(metrics.fresh & metrics.ok, index(archs), 64)
        rewards = rewards.at[place].set(reward, mode="drop")
        reward = jnp.where(metrics.ok, rewards[index(archs)], 0.0)
        return (known, batches + 1, rewards), metrics._replace(accuracy=reward, reward=reward)

    def finals(state, key):
        first = np.asarray(state[2])
        best = np.argsort(-first, kind="stable")[:5]
        archs = np.stack(np.unravel_index(best, (4, 4, 4)), axis=1).astype(np.int32)
        second = np.asarray(accuracy(jnp.asarray(archs)) + 0.001 * jax.random.normal(key, (5,)))
        nan, ok = np.full(5, np.nan), np.full(5, not fails)
        metrics = Metrics(first[best], first[best], nan, archs.sum(1) * 1.0, nan, nan, ok, ok)
        if calls is not None:
            calls.append(archs.tolist())
            if len(calls) == 1:
                raise Crash
        return Finals(archs, metrics, second, second, ok)

    initial = lambda: (jnp.zeros(64, bool), jnp.float32(0), jnp.full(64, -jnp.inf))  # noqa: E731
    return EVALUATOR._replace(init=initial, evaluate=rising, hooks=Hooks(finals=finals))


def build_with(evaluator):
    return lambda config, knowledge: (TASK, METHOD, evaluator)


def test_where_readings_rise_the_finals_name_the_winner(tmp_path, capfd):
    """The winner is the better network, and everything in result.json is about it."""
    result = loop.run(config_with(search__budget=12), tmp_path, build_with(drifting()))
    best, listed = result["best"], result["finalists"]
    assert result["counts"]["finalists"] == len(listed) == 5
    firsts = [entry["first_reward"] for entry in listed]
    assert firsts == sorted(firsts, reverse=True)
    # The first reading would have been wrong: another of the finalists is better.
    true = [float(accuracy(jnp.array(entry["arch"]))) for entry in listed]
    chosen = [entry["arch"] for entry in listed].index(best["arch"])
    assert true[chosen] == max(true) > true[0] + 0.01
    entry = listed[chosen]
    assert {name: best[name] for name in entry if name != "text"} == {
        name: value for name, value in entry.items() if name != "text"
    }
    assert best["description"]["text"] == entry["text"]
    assert best["reward"] == max(e["reward"] for e in listed) < best["first_reward"]
    assert best["mflops"] == sum(best["arch"])
    assert result["winner"]["accuracy"] == pytest.approx(true[chosen])
    # They are no rows, and no iteration: warm starts and the log know of first readings only.
    assert sum(row[3] for row in rows_of(tmp_path)) == result["counts"]["trained"]
    assert lines_of(tmp_path)[-1]["best_reward"] == pytest.approx(firsts[0])
    told = [line for line in capfd.readouterr().err.splitlines() if "finals" in line]
    assert len(told) == 1 and f"number {chosen + 1} of the first readings wins" in told[0]


def test_where_all_finalists_fail_the_first_readings_decide(tmp_path, capfd):
    result = loop.run(config_with(), tmp_path, build_with(drifting(fails=True)))
    assert result["best"]["arch"] == result["finalists"][0]["arch"]
    assert "first_reward" not in result["best"]
    assert result["best"]["reward"] == result["finalists"][0]["first_reward"]
    assert [entry["reward"] for entry in result["finalists"]] == 5 * [None]
    assert result["counts"]["finalists"] == 5
    assert "none of the 5 best gave a result again; the first readings" in capfd.readouterr().err


def test_a_kill_in_the_finals_repeats_them_and_nothing_else(tmp_path):
    whole = loop.run(config_with(), tmp_path / "whole", build_with(drifting()))
    calls, folder = [], tmp_path / "killed"
    with pytest.raises(Crash):
        loop.run(config_with(), folder, build_with(drifting(calls)))
    before = lines_of(folder)
    resumed = loop.run(config_with(), folder, build_with(drifting(calls)))
    assert timeless(resumed) == timeless(whole) and resumed["resumed"] == 1
    assert len(calls) == 2 and calls[0] == calls[1]
    assert lines_of(folder) == before
    assert rows_of(folder) == rows_of(tmp_path / "whole")


def test_a_finished_search_is_not_judged_again(tmp_path):
    calls = []
    task = TASK._replace(final=lambda arch, key: calls.append(1) or Judged({"accuracy": 0.5}))
    first = loop.run(config_with(), tmp_path, lambda c, k: build(c, k, task=task))
    assert loop.run(config_with(), tmp_path, lambda c, k: build(c, k, task=task)) == first
    assert calls == [1]


def test_the_network_that_the_task_trained_is_kept_before_the_evaluator_s(tmp_path, monkeypatch):
    """Never the better one of the two: they can only be compared on test images."""
    aim = classification.of(2)
    networks = [TrainedNetwork(np.zeros(3), {}, accuracy, {}, aim) for accuracy in (0.5, 0.9)]
    kept = []

    def keep(folder, winner, say):
        assert folder == tmp_path and not (tmp_path / "result.json").exists()
        kept.append(winner)
        return {"folder": "best"}

    monkeypatch.setattr(loop.ship, "keep", keep)
    hooks = Hooks(finalize=lambda state, arch, key: Judged({"more": 1}, networks[1]))
    parts = METHOD, EVALUATOR._replace(hooks=hooks)
    for network, expected in ((networks[0], 0.5), (None, 0.9)):
        task = TASK._replace(final=lambda arch, key, n=network: Judged({"accuracy": 0.5}, n))
        build = lambda config, knowledge, task=task: (task, *parts)  # noqa: E731
        result = loop.run(config_with(), tmp_path, build)
        assert kept[-1].judged.network.accuracy == expected
        assert kept[-1].validation == pytest.approx(result["best"]["accuracy"])
        judged = {"accuracy": 0.5, "value": 0.5, "more": 1, "kept": {"folder": "best"}}
        assert result["winner"] == judged
        (tmp_path / "result.json").unlink()


def test_a_task_without_networks_keeps_nothing_and_says_so(tmp_path, capsys):
    result = loop.run(config_with(), tmp_path, build)
    assert result["winner"]["kept"] is None and not (tmp_path / "best").exists()
    lines = [line for line in capsys.readouterr().err.splitlines() if "best/" in line]
    assert lines == [f"nothing is kept in best/: the task {TASK.name} trains no network"]


def test_what_a_task_has_to_say_is_said_once_before_the_first_iteration(
    tmp_path, capsys, monkeypatch
):
    task = TASK._replace(said=("augmentation auto: crop 2",))
    monkeypatch.setattr(registry, "build_task", lambda *given: task)
    loop.run(config_with(method__name="random"), tmp_path)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == task.said[0] and lines.count(task.said[0]) == 1


def test_a_crash_while_the_winner_is_judged_repeats_only_that(tmp_path):
    def crash(arch, key):
        raise Crash

    with pytest.raises(Crash):
        task = TASK._replace(final=crash)
        loop.run(config_with(), tmp_path, lambda c, k: build(c, k, task=task))
    before = lines_of(tmp_path)

    def refuse(*args):
        raise AssertionError("asked again")

    method = METHOD._replace(ask=refuse)
    result = loop.run(config_with(), tmp_path, lambda c, k: build(c, k, method))
    assert result["winner"]["accuracy"] > 0
    assert lines_of(tmp_path) == before


def test_a_damaged_checkpoint_goes_back_one_iteration(undisturbed, tmp_path, effects):
    effects["left"] = 6  # after the second checkpoint
    with pytest.raises(Crash):
        loop.run(config_with(), tmp_path, build)
    for path in (tmp_path / "checkpoints" / "2").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    effects["left"] = None
    assert timeless(loop.run(config_with(), tmp_path, build)) == timeless(undisturbed[1])
    assert rows_of(tmp_path) == rows_of(undisturbed[0])


def test_a_search_that_only_meets_known_architectures_ends(tmp_path):
    method = METHOD._replace(
        ask=lambda state, key: (state, propose(jnp.full((BATCH, 3), 2, jnp.int32)))
    )
    config = config_with(search__max_proposals=11)
    result = loop.run(config, tmp_path, lambda c, k: build(c, k, method))
    assert result["iterations"] == 3
    # All four of a batch are one architecture; this task takes each for new within a batch.
    assert result["best"]["arch"] == [2, 2, 2]


def test_a_search_without_any_result_says_so(tmp_path):
    method = METHOD._replace(
        ask=lambda state, key: (state, propose(jnp.zeros((BATCH, 3), jnp.int32)))
    )
    result = loop.run(config_with(), tmp_path, lambda c, k: build(c, k, method))
    assert result["best"] is None and result["winner"] is None
    assert result["counts"]["failed"] == result["counts"]["trained"] > 0


def test_searches_share_a_store(tmp_path):
    store = str(tmp_path / "shared")
    for seed in (0, 1):
        config = config_with(seed=seed, knowledge__dir=store)
        loop.run(config, tmp_path / str(seed), build)
    with contextlib.closing(history.open_(store)) as connection:
        found = history.rows(connection, SPACE.name, TASK.name)
        assert len(set(found.run)) == 2
        np.testing.assert_array_equal(found.mflops[found.ok], found.decisions[found.ok].sum(1))


def test_metrics_can_be_thinned(tmp_path):
    result = loop.run(config_with(log__every=2, search__budget=12), tmp_path, build)
    steps = [line["iteration"] for line in lines_of(tmp_path)]
    last = result["iterations"]
    assert steps == sorted({*range(2, last + 1, 2), last})


def test_a_store_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"knowledge folder .* cannot be used"):
        loop.run(config_with(knowledge__dir=str(tmp_path / "file")), tmp_path / "w", build)


@pytest.mark.parametrize("pool", [False, True])
def test_a_search_that_never_begins_makes_no_store(tmp_path, pool):
    """Not even an empty one, where many share it; a task that looks at the pool makes none."""

    def refuse(config, knowledge):
        assert history.count_trained(knowledge.history, knowledge.run) == 0
        if pool:
            pool_store.check(pool_store.Store(knowledge.pool, SPACE, 1, 2, 2, knowledge.run))
        raise UserError("no such method")

    shared = tmp_path / "shared"
    with pytest.raises(UserError, match="no such method"):
        loop.run(config_with(knowledge__dir=str(shared)), tmp_path / "w", refuse)
    assert not shared.exists() and not (tmp_path / "w").exists()


def test_what_was_told_before_the_search_began_is_kept(tmp_path):
    def tell(config, knowledge):
        task_data.record_task(knowledge.history, "mine", {"size": 3.0})
        return build(config, knowledge)

    for name in "ab":  # the second finds the store on disk
        loop.run(config_with(knowledge__dir=str(tmp_path / "shared")), tmp_path / name, tell)
        with contextlib.closing(history.open_(tmp_path / "shared")) as connection:
            assert task_data.task_statistics(connection) == {"mine": {"size": 3.0}}


def test_a_full_training_is_kept_in_the_workdir_until_the_result_is_written(tmp_path, undisturbed):
    """The wiring: a task that keeps goes on where it was, and leaves nothing behind."""
    seen = []

    def final(arch, key, keep):
        seen.append(int(keep.load("winner", "it", np.zeros(1))[0]))
        keep.save("winner", "it", 1 + seen[-1], np.ones(1) + seen[-1])
        if len(seen) < 3:
            raise RuntimeError("killed")
        assert keep.seconds == 30 and keep.progress is not None
        return TASK.final(arch, key)

    def building(config, knowledge):
        return TASK._replace(final=final, keeps=True), METHOD, EVALUATOR

    for _ in range(2):
        with pytest.raises(RuntimeError, match="killed"):
            loop.run(config_with(), tmp_path, building)
    assert [path.name[:8] for path in (tmp_path / "training").iterdir()] == ["winner--"]
    result = loop.run(config_with(), tmp_path, building)
    assert seen == [0, 1, 2] and timeless(result) == timeless(undisturbed[1])
    assert not (tmp_path / "training").exists()
    (tmp_path / "training").mkdir()  # killed between the two
    loop.run(config_with(), tmp_path, building)
    assert len(seen) == 3 and not (tmp_path / "training").exists()


def test_a_stage_says_how_many_steps_it_has_done_and_how_long_the_rest_takes():
    marks = [Mark(0.0, 10.0), Mark(5.0, 20.0), Mark(9.0, 30.0)]
    assert stepping.how_far(marks, 60) == ": 30 of 60 steps, 0:12 left"
    assert stepping.how_far(marks[:1], 60) == ": 10 of 60 steps"
    assert stepping.how_far(marks, 30) == ": 30 of 30 steps"
    assert stepping.how_far(marks, 0) == ""


def test_a_stage_that_says_its_steps_is_told_with_them_and_they_are_no_metric(tmp_path, capsys):
    def told(state, key):
        for number, (found, figures) in enumerate(prepare(state, key), start=1):
            yield found, figures | {"steps": (number, 3), "text": ": and more"}

    method = METHOD._replace(prepare=told)
    loop.run(config_with(), tmp_path, functools.partial(build, method=method))
    assert "preparing: step 2: 2 of 3 steps, 0:00 left: and more\n" in capsys.readouterr().err
    assert [line.get("loss") for line in lines_of(tmp_path)[:3]] == [1.0, 1 / 2, 1 / 3]
    assert not any("steps" in line for line in lines_of(tmp_path))


def test_a_search_says_its_stages_and_tensorboard_has_settings_and_summary(tmp_path, monkeypatch):
    entered, compiling, at = [], [], stages.at

    def noted(name, *seconds):
        entered.append((name, stages.read(tmp_path) is not None))
        return at(name, *seconds)

    def bar(*given, **more):
        compiling.append(more["compiling"])
        return Progress(*given, **more)

    monkeypatch.setattr(stages, "at", noted)
    monkeypatch.setattr(loop, "Progress", bar)
    result = loop.run(config_with(), tmp_path, build)
    assert entered == [
        ("planning", False),
        *((name, True) for name in ("reading the data and building the task", "preparing")),
        *((name, True) for name in ("search", "finals", "winner")),
    ]
    assert not (tmp_path / stages.FILE).exists()
    assert 0 < compiling[0]() <= result["seconds"]["compile"] + 1e-9
    told = {v.tag: v for e in events(tmp_path / "tensorboard") for v in e.summary.value}
    assert "_hparams_/session_start_info" in told and "search/best_reward" in told
    text = told["summary/text_summary"].tensor.string_val[0].decode()
    assert f"best: {result['best']['description']['text']}" in text
    assert told["winner/accuracy"].simple_value == pytest.approx(result["winner"]["accuracy"])

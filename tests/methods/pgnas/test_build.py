"""PGNAS from a configuration: refusals, and whole small searches on real images."""

import contextlib
import json
import shutil

import jax
import numpy as np
import pytest

from fnas_jax import loop, registry, report
from fnas_jax.core import config as config_lib
from fnas_jax.core import logging as log_lib
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.layers import choose
from fnas_jax.methods.pgnas import build as pgnas
from fnas_jax.methods.pgnas.config import Pgnas
from fnas_jax.spaces import categorical
from tests.methods.oneshot.digits import BUDGET, EVERY, STEPS, configuration, lines


def timeless(value):
    if isinstance(value, dict):
        return {
            k: timeless(v)
            for k, v in value.items()
            if k not in ("latency_ms", "resumed") and "seconds" not in k
        }
    return [timeless(v) for v in value] if isinstance(value, list) else value


class Cut(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(a whole search, the same one cut while it trains and while it samples)."""
    folder = tmp_path_factory.mktemp("pgnas")
    whole, cut = folder / "whole", folder / "cut"
    config = configuration("pgnas", **{"oneshot.finetune": 40})
    write = log_lib.MetricLog.write

    def copy(self, step, values):
        """What the whole one has on disk then is what a process that ends there leaves."""
        if step == 1:
            shutil.copytree(whole, cut)
        write(self, step, values)

    def stop(self, step, values):
        if step == 4:
            raise Cut
        write(self, step, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_lib.MetricLog, "write", copy)
        loop.run(config, whole)
        patch.setattr(log_lib.MetricLog, "write", stop)
        with pytest.raises(Cut):
            loop.run(config, cut)
    loop.run(config, cut)
    return whole, cut


def test_rows_are_known_as_inherited_from_this_supernet(runs):
    with contextlib.closing(history.open_(runs[0] / "knowledge")) as connection:
        (group,) = history.groups(connection)
    protocol = json.loads(group.settings)
    assert protocol["weights"] == "inherited" and "steps" not in protocol["children"]
    assert protocol["supernet"]["method"] == "pgnas" and protocol["supernet"]["steps"] == STEPS


def test_a_search_on_digits_learns_samples_and_fine_tunes(runs):
    result = json.loads((runs[0] / "result.json").read_text())
    assert BUDGET <= result["counts"]["trained"] <= BUDGET + 2
    assert result["best"]["accuracy"] > 0.5
    tuned = result["winner"]["finetuned"]
    assert tuned["steps"] == 40 and tuned["accuracy"] > 0.5
    training = [m for m in lines(runs[0]) if m.get("stage") == "prepare"]
    assert len(training) == STEPS // EVERY
    assert training[-1]["nll"] < training[0]["nll"] < 3
    for entry in training:
        parts = sum(entry[f"kl_{part}"] for part in ("weights", "cost", "entropy"))
        np.testing.assert_allclose(entry["kl"], parts, rtol=1e-5)
        assert len(entry["entropy_slots"]) == len(entry["mode"]) == len(entry["pi"]) == 7
        for pi, choice in zip(entry["pi"], entry["mode"], strict=True):
            np.testing.assert_allclose(sum(pi), 1, rtol=1e-5)
            assert pi[choice] == max(pi)
    sampled = [m for m in lines(runs[0]) if "iteration" in m]
    for entry in sampled:  # log q of every sample
        for arch, log_q in zip(entry["samples"], entry["log_q"], strict=True):
            pi = [row[k] for row, k in zip(training[-1]["pi"], arch, strict=True)]
            np.testing.assert_allclose(log_q, np.log(pi).sum(), rtol=1e-4)


def test_a_cut_search_goes_on_as_if_it_had_not_been(runs):
    results = [json.loads((folder / "result.json").read_text()) for folder in runs]
    assert results[1]["resumed"] == 2
    assert timeless(results[0]) == timeless(results[1])
    assert timeless(lines(runs[0])) == timeless(lines(runs[1]))


def test_rows_of_the_history_say_that_no_child_was_trained(runs):
    connection = history.open_(runs[0] / "knowledge")
    steps = {row[0] for row in connection.execute("SELECT steps FROM evaluations")}
    connection.close()
    assert steps == {0}


def test_the_report_shows_the_posterior(runs, capsys):
    assert report.command([f"--workdir={runs[0]}"]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (runs[0] / "report.html").read_text()
    for text in ("block0\\u002fkernel", "Posterior", "fine-tuned", "cross-entropy", "inherited"):
        assert text in page


@pytest.mark.slow
def test_learnt_blocks_start_another_supernet(runs, tmp_path):
    """A second search with the knowledge of the first one starts from its blocks."""
    first = runs[0] / "knowledge"
    connection = history.open_(tmp_path)
    config = configuration("pgnas")

    def start(pool):
        knowledge = Knowledge(connection, pool=pool, run="00000002")
        task = registry.build_task(config, knowledge)
        method, _ = pgnas.build(config, task.space, task, knowledge)
        state = method.init(jax.random.key(0))
        return np.asarray(state.learnt.weights.vector)

    learnt, fresh = start(first / "pool"), start(tmp_path / "pool")
    connection.close()
    assert learnt.shape == fresh.shape
    assert np.mean(learnt != fresh) > 0.02  # the blocks of a few small networks
    assert np.isfinite(learnt).all()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"pgnas.gradient": "concrete"}, "allows local and score only"),
        ({"pgnas.mflops": 1e-6}, "the cheapest network known has 0.* MFLOPs"),
    ],
)
def test_what_cannot_be_is_told(keys, message):
    config = configuration("pgnas", **keys)
    task = registry.build_task(config)
    with pytest.raises(UserError, match=message):
        pgnas.build(config, task.space, task, None)


@pytest.mark.parametrize("method", ["pgnas", "spos"])
def test_tables_hold_no_weights_to_inherit(tmp_path, method):
    table = tmp_path / "t.csv"
    table.write_text("decision_0,accuracy\n0,90\n1,80\n")
    config = configuration(method)
    config.task.name = f"tabular/{table}"
    with pytest.raises(UserError, match="only looks architectures up"):
        loop.run(config, tmp_path / "w")


@pytest.mark.slow
def test_the_macro_space_learns_by_the_concrete_relaxation():
    keys = {
        "space.name": "macro",
        "space.width": 0.125,
        "pgnas.gradient": "concrete",
        "pgnas.warmup": 0.0,
        "oneshot.steps": 20,
        "oneshot.every": 20,
    }
    config = config_lib.validate(configuration("pgnas", **keys))
    task = registry.build_task(config)
    method, _ = pgnas.build(config, task.space, task, None)
    key = jax.random.key(0)
    state, values = list(method.prepare(method.init(key), key))[-1]
    phi = np.asarray(state.learnt.phi)
    assert np.isfinite(phi).all() and (np.abs(phi).max(1) > 0).all()
    assert np.isfinite(values["nll"])
    assert not any(np.asarray(m).any() for m in jax.tree.leaves(state.learnt.weights.momentum))


@pytest.mark.parametrize("gradient", ["local", "concrete"])
def test_layers_run_on_the_backend_that_was_asked_for(gradient, monkeypatch):
    """The masked one, where all others fail; traced, which calls them, and not compiled."""
    keys = {"space.name": "macro", "space.width": 0.125, "pgnas.gradient": gradient}
    config = config_lib.validate(configuration("pgnas", **keys, **{"children.backend": "masked"}))

    def fail(*_):
        raise AssertionError("another backend ran")

    for other in ("KERNELS", "REFERENCE"):
        monkeypatch.setattr(choose, other, choose.Backend(fail, fail, looped=True))
    task = registry.build_task(config)
    parts = task.oneshot()
    loss = pgnas.loss(pgnas.configure(config, task.space, parts), parts)
    arch = np.zeros(len(task.space.cardinalities), np.int32)
    params = jax.eval_shape(parts.network.init, jax.random.key(0), arch)
    images = parts.pipeline.normalise(parts.data.train_images[:8])
    z = jax.nn.one_hot(arch, 3)
    assert jax.eval_shape(loss, params, arch, z, images, parts.data.train_labels[:8]).shape == ()


def test_label_smoothing_reaches_the_training():
    losses = []
    for smoothing in (0.0, 0.2):
        config = configuration("pgnas", **{"children.label_smoothing": smoothing})
        task = registry.build_task(config)
        parts = task.oneshot()
        loss = pgnas.loss(pgnas.configure(config, task.space, parts), parts)
        arch = np.zeros(len(task.space.cardinalities), np.int32)
        params = jax.jit(parts.network.init)(jax.random.key(0), arch)
        images = parts.pipeline.normalise(parts.data.train_images[:8])
        given = params, arch, None, images, parts.data.train_labels[:8]
        losses.append(float(jax.jit(loss)(*given)))
    assert abs(losses[0] - losses[1]) > 1e-3


def test_a_budget_below_all_random_networks_is_none_below_the_cheapest():
    """Of ten thousand random ones none has less than 6; the cheapest has 0."""
    space = categorical.make((4,) * 20)
    numbers = Pgnas(mflops=2.0)
    costs = jax.jit(lambda archs: archs.sum(1).astype(float))
    assert costs(space.sample(jax.random.key(0), 10_000)).min() > 5
    pgnas.check_budget(numbers, space, costs)
    with pytest.raises(UserError, match=r"pgnas\.mflops is 2; .* known has 5\.001 MFLOPs \(0,0,"):
        pgnas.check_budget(numbers, space, lambda archs: costs(archs) + 5.0004)

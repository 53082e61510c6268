"""Knowledge of other tasks: it helps where they are alike and goes where it misleads."""

import dataclasses

import jax
import numpy as np
import pytest

from fnas_jax.methods.fnas import method, transfer
from fnas_jax.spaces import base
from tests.methods import toy
from tests.methods.fnas.test_method import SMALL


def source(sign):
    archs = base.enumerate_all(toy.SPACE)
    reward = sign * np.asarray(toy.accuracy(archs))
    task, nothing = np.zeros(216, np.int32), np.zeros((2, 0), np.float32)
    return transfer.SourceTasks(archs, reward.astype(np.float32), task, nothing, 150)


NETWORKS = SMALL._replace(uac=dataclasses.replace(SMALL.uac, uncertainty="ensemble"))


@pytest.mark.slow
@pytest.mark.parametrize("config", [SMALL, NETWORKS], ids=["gp", "ensemble"])
def test_knowledge_of_a_like_task_saves_evaluations(config):
    state, trace = toy.search(method.make(toy.SPACE, config, source(1.0)), 3, 6)
    assert np.asarray(state.best.reward).min() > 0.97
    assert np.asarray(trace.fresh).sum(axis=(1, 2)).max() <= 16
    assert (np.asarray(state.stats["foreign_rows"]) == 150).all()
    assert (np.asarray(state.stats["agreement"]) > 0).all()


@pytest.mark.slow
def test_knowledge_that_misleads_is_outweighed():
    state, _ = toy.search(method.make(toy.SPACE, SMALL, source(-1.0)), 3, 24)
    assert (np.asarray(state.stats["foreign_rows"]) == 0).all()
    assert np.asarray(state.best.reward).min() > 0.9


@pytest.mark.slow
def test_knowledge_that_misleads_is_dropped():
    state, _ = toy.search(method.make(toy.SPACE, NETWORKS, source(-1.0)), 3, 24)
    known = state.uac.model
    assert not np.asarray(known.warm).any()
    assert (np.asarray(state.stats["foreign_rows"]) == 0).all()
    jax.tree.map(np.testing.assert_array_equal, known.ensemble.anchor, known.ensemble.start)
    assert np.asarray(state.best.reward).min() > 0.9


def test_embeddings_are_centred_and_drop_what_all_share():
    statistics = [{"images": 1000, "classes": 10}, {"images": 5000, "classes": 10}, {}]
    got = transfer.embed(statistics)
    assert got.shape == (3, 1)  # all that tell their classes have ten
    np.testing.assert_allclose(got[0], -got[1], rtol=1e-5)
    assert got[2] == 0
    assert transfer.embed([{}, {}]).shape == (2, 0)

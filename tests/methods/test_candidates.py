"""What is above a limit is not proposed where that can be known, and else has a place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.methods import candidates
from fnas_jax.methods.baselines import bananas, gp, tpe
from fnas_jax.methods.baselines.config import Bananas, Gp, Tpe
from fnas_jax.tasks.base import Evaluator, Task
from tests.methods import toy
from tests.methods.tnas import small

BANANAS = Bananas(members=2, hidden=8, steps=5, pool=96, start=4)


def light(archs):
    """86 of the 216 networks of the toy space."""
    return archs.sum(axis=-1) <= 4


MAKERS = {
    "gp listed": lambda **o: gp.make(toy.SPACE, Gp(start=4), 2, 40, **o),
    "gp drawn": lambda **o: gp.make(toy.SPACE, Gp(start=4), 2, 40, most_listed=1, pool=96, **o),
    "bananas": lambda **o: bananas.make(toy.SPACE, BANANAS, 2, 40, **o),
    "tpe": lambda **o: tpe.make(toy.SPACE, Tpe(), 2, 40, **o),
    "tnas listed": lambda **o: small.make(proposals=2, capacity=40, **o),
    "tnas drawn": lambda **o: small.make(proposals=2, capacity=40, most_listed=1, **o),
}


@pytest.mark.parametrize(
    "name",
    ["gp listed", *(pytest.param(n, marks=pytest.mark.slow) for n in list(MAKERS)[1:])],
)
def test_only_what_is_allowed_is_proposed_and_learnt(name):
    state, trace = toy.search(MAKERS[name](allowed=light), 2, 10)
    archs = np.asarray(trace.archs).reshape(-1, 5)
    assert light(archs).all() and np.asarray(trace.fresh).all()
    assert (np.asarray(state.places) == 20).all()


def test_where_nothing_is_allowed_that_is_told():
    with pytest.raises(UserError, match=r"no network of space .* keeps all limits"):
        candidates.listed(toy.SPACE, 1000, lambda archs: jnp.zeros(len(archs), bool))
    assert candidates.listed(toy.SPACE, 100, light) is None
    assert len(candidates.listed(toy.SPACE, 1000, light)) == 86


def test_what_a_task_refuses_though_it_was_allowed_has_a_place():
    config = config_lib.default()
    task = type("Task", (), {"refuses": False})
    assert candidates.places(config, task) == 64 + 8
    task.refuses = True
    assert candidates.places(config, task) == 20 * 64 + 8
    config.search.max_proposals = 100
    assert candidates.places(config, task) == 100 + 8
    config.search.max_proposals, config.search.budget = 0, 1000
    assert candidates.places(config, task) == candidates.MOST  # and not 20008
    config.search.budget = 204  # until here, growth changes no capacity that was reached
    assert candidates.places(config, task) == 20 * 204 + 8
    config.search.budget = 5000
    assert candidates.places(config, task) == 5000 + 8


def test_the_state_of_a_process_is_of_bounded_size_where_networks_are_refused():
    config = config_lib.default()
    config.search.budget, config.method.name, config.space.name = 1000, "gp", "mnas"
    space = registry.build_space(config)
    task = Task("t", space, Evaluator(None, None, False), None, refuses=True)
    method, _ = gp.build(config, space, task, None)
    state = jax.eval_shape(method.init, jax.random.key(0))
    size = sum(leaf.size * 4 for leaf in jax.tree.leaves(state))
    assert size < 70 * 2**20  # bytes

"""FNAS as a search method: what its flags do, and that predictions cost nothing."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.core.types import Proposal, UserError
from fnas_jax.methods.baselines import ppo as baseline
from fnas_jax.methods.fnas import method
from fnas_jax.methods.fnas.config import Aeb, Config, Fnas, Uac
from fnas_jax.methods.rl.config import Ppo
from fnas_jax.spaces import categorical
from tests.methods import toy

SMALL = Config(
    batch=4,
    fnas=Fnas(pool=48, imagination=2),
    uac=Uac(members=3, hidden=16, tau=3.0, warmup=8, explore=0.0),
    aeb=Aeb(capacity=64),
    ppo=Ppo(hidden=8, lr=0.02, epochs=2, entropy=1e-3, baseline_decay=0.95),
)
NO_CRITIC = SMALL._replace(uac=replace(SMALL.uac, enabled=False))
PLAIN = NO_CRITIC._replace(aeb=replace(SMALL.aeb, enabled=False))


def with_fnas(**numbers):
    """SMALL with other numbers in its section `fnas`."""
    return SMALL._replace(fnas=replace(SMALL.fnas, **numbers))


@functools.cache
def small():
    """The compiled functions of one method."""
    return toy.compiled(method.make(toy.SPACE, with_fnas(verify_every=4)))


@functools.cache
def searched(config=SMALL):
    """States and traces of three searches of 24 iterations."""
    return toy.search(method.make(toy.SPACE, config), 3, 24)


def test_it_finds_the_best_and_trains_few():
    state, trace = searched()
    trained = np.asarray(trace.fresh).sum(axis=(1, 2))
    assert np.asarray(state.best.reward).min() > 0.97
    assert (trained < 0.6 * 96).all()
    np.testing.assert_array_equal(state.trained, trained)
    np.testing.assert_array_equal(state.buffer.added, trained)


def test_the_winner_is_a_trained_architecture():
    state, trace = searched()
    for seed in range(3):
        rewards = np.where(trace.ok[seed], trace.reward[seed], -1)
        i = np.unravel_index(rewards.argmax(), rewards.shape)
        np.testing.assert_array_equal(state.best.arch[seed], trace.archs[seed][i])


def test_warm_up_trains_everything_and_predictions_follow():
    _, trace = searched()
    assert np.asarray(trace.ok)[:, :2].all()
    assert not np.asarray(trace.ok)[:, 4:].all()


def test_every_training_has_one_reason():
    _, trace = searched()
    counts = {rule: np.asarray(trace.stats[f"for_{rule}"]) for rule in method.RULES}
    np.testing.assert_array_equal(sum(counts.values()), np.asarray(trace.fresh).sum(axis=2))
    assert (counts["warmup"].sum(axis=1) >= 8).all() and not counts["warmup"][:, 4:].any()
    assert counts["verification"][:, 4:].all() and not counts["exploration"].any()


def test_each_iteration_trains_a_new_architecture_that_the_critic_likes():
    _, trace = searched()
    # By its own place, or an earlier one of the same network that the critic is unsure of.
    assert np.asarray(trace.fresh)[:, 3:].any(axis=-1).all()
    assert np.asarray(trace.fresh)[:, 3:, -1].mean() > 0.9
    state = small().init(jax.random.key(0))._replace(trained=jnp.int32(8))
    for iteration in range(8):
        asked, _ = small().ask(state._replace(iteration=jnp.int32(iteration)), jax.random.key(1))
        assert asked.asked.acquired.any() == (iteration % 4 == 0)


def test_without_the_critic_everything_is_trained_and_the_buffer_replays():
    state, trace = toy.search(method.make(toy.SPACE, NO_CRITIC), 2, 4)
    assert np.asarray(trace.ok).all() and state.uac is None
    assert (np.asarray(state.stats["predicted_now"]) == 0).all()
    assert (np.asarray(state.stats["replayed"]) > 0).all()


def test_all_off_is_the_baseline_exactly():
    ours = toy.compiled(method.make(toy.SPACE, PLAIN))
    theirs = toy.compiled(baseline.make(toy.SPACE, PLAIN.ppo, 4))
    one, two = ours.init(jax.random.key(0)), theirs.init(jax.random.key(0))
    one = one._replace(ppo=two.ppo)
    for i in range(3):
        _, proposal = theirs.ask(two, jax.random.key(i))
        answer = toy.metrics(toy.accuracy(np.asarray(proposal.archs)))
        one, two = ours.tell(one, proposal, answer), theirs.tell(two, proposal, answer)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one.ppo.params, two.ppo.params
        )
    assert (np.asarray(one.stats["replayed"]) == 0).all()


def test_imagination_stays_in_its_region_and_can_be_turned_off():
    state, _ = searched()
    assert (np.asarray(state.stats["imagined_kl"]) <= SMALL.fnas.kl_max).all()
    off = method.make(toy.SPACE, with_fnas(imagination=0))
    assert "imagined" not in off.init(jax.random.key(0)).stats


@pytest.mark.slow
def test_residual_uncertainty_is_another_number_from_the_same_samples():
    config = SMALL._replace(uac=replace(SMALL.uac, uncertainty="residual"))
    state, _ = searched(config)
    assert np.isfinite(np.asarray(state.stats["uncertainty"])).all()
    assert not np.allclose(state.stats["uncertainty"], searched()[0].stats["uncertainty"])
    assert np.asarray(state.best.reward).min() > 0.9


def test_the_state_keeps_its_shape_and_failures_count_as_the_worst():
    state = small().init(jax.random.key(0))
    asked, proposal = small().ask(state, jax.random.key(1))
    told = small().tell(
        asked, proposal, toy.metrics([0.3, 0.9, 0.4, 0.5], ok=[True, False, True, True])
    )
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), s) for s in (state, asked, told)]
    assert shapes[0] == shapes[1] == shapes[2]
    assert float(told.best.reward) == 0.5
    assert 0.0 in np.asarray(told.buffer.reward)[:4]


def test_predicted_rewards_teach_the_controller_but_never_the_critic():
    state = small().init(jax.random.key(0))
    archs = jnp.asarray(toy.SPACE.sample(jax.random.key(1), 4))
    mask = jnp.array([True, True, False, False])
    log_prob = jnp.full(4, -5.0)

    def told(predicted):
        proposal = Proposal(archs, mask, log_prob, jnp.asarray(predicted), jnp.ones(4))
        return small().tell(state, proposal, toy.metrics([0.2, 0.8, 0.0, 0.0]))

    one, two = told([0.0, 0.0, 0.1, 0.9]), told([0.0, 0.0, 0.9, 0.1])
    assert int(one.buffer.added) == 2
    jax.tree.map(np.testing.assert_array_equal, one.uac.model, two.uac.model)
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), one.ppo.params, two.ppo.params)
    assert max(jax.tree.leaves(moved)) > 1e-4


def test_vectors_stay_as_drawn_beside_the_networks_that_they_are():
    """What was drawn teaches the controller; what it is, the critic, and whether it is known."""
    made = toy.compiled(method.make(toy.IDLE, with_fnas(verify=0)))
    ask, tell = made.ask, made.tell
    state = made.init(jax.random.key(0))
    asked, proposal = ask(state, jax.random.key(1))
    # In the warm-up, vectors that are canonical come first, and mu says so.
    np.testing.assert_array_equal(proposal.archs, toy.IDLE.canonical(proposal.archs))
    assert (np.asarray(asked.asked.log_tilt) > 0.1).all()
    moved = np.asarray(proposal.archs).copy()
    moved[0] = [0, 3, 1, 1, 1]  # another form of [0, 0, 1, 1, 1]
    proposal = proposal._replace(archs=jnp.asarray(moved))
    told = tell(asked, proposal, toy.metrics([0.1, 0.2, 0.3, 0.4]))
    buffer = told.buffer
    np.testing.assert_array_equal(buffer.archs[:4], moved)
    np.testing.assert_array_equal(buffer.canonical[0], [0, 0, 1, 1, 1])
    np.testing.assert_allclose(
        buffer.log_mu[:4], proposal.log_prob + asked.asked.log_tilt, rtol=1e-6
    )
    twin = jnp.asarray(moved).at[0, 1].set(2)
    again = tell(told, proposal._replace(archs=twin), toy.metrics([0.9, 0.2, 0.3, 0.4]))
    assert int(again.buffer.added) == 4  # all four networks are known
    late = told._replace(trained=jnp.int32(99))
    asked, _ = ask(late, jax.random.key(2))
    np.testing.assert_allclose(asked.asked.log_tilt, 0, atol=1e-6)


def test_small_spaces_are_listed_where_they_have_as_many_networks_as_an_elite():
    assert method.context(toy.IDLE, SMALL).everything.shape == (162, 5)
    assert method.context(categorical.make((2, 2)), SMALL).everything is None
    assert method.context(categorical.make((9,) * 5), SMALL).everything is None
    assert method.context(toy.IDLE, NO_CRITIC).everything is None
    assert method.context(toy.IDLE, with_fnas(verify=0)).everything is None


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="none of gp, ensemble, residual"):
        method.make(toy.SPACE, SMALL._replace(uac=replace(SMALL.uac, uncertainty="none")))
    with pytest.raises(UserError, match="do not suit a batch of 4"):
        method.make(toy.SPACE, with_fnas(verify=5))

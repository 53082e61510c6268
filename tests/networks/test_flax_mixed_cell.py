"""Children of the space of mixed cells equal Flax networks of the same weights, and single ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.networks import cell as networks
from fnas_jax.networks import cell_edges, elastic
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import base, cell, mixed_cell
from tests.networks import agreement

SPEC = mixed_cell.MixedCellSpec(channels=4, cells_per_stage=1, stages=1)
IMAGES = jax.random.normal(jax.random.key(1), (8, 5, 7, 2))


def as_mixed(archs):
    """[N, 6] cells -> [N, 24] mixed cells with the one operation on each edge."""
    return (archs[..., None] == 1 + np.arange(4)).astype(np.int32).reshape(len(archs), -1)


@pytest.fixture(scope="module")
def case():
    return agreement.case("mixed_cell")


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["reference", "branched"])
def test_twenty_random_children_equal_flax_networks(backend, monkeypatch):
    """`branched` in float32, as its type for accelerators has three digits."""
    monkeypatch.setattr(elastic, "short_type", lambda: jnp.float32)
    space = mixed_cell.make(channels=4, cells_per_stage=1)
    random = agreement.case(space, backend, np.asarray(space.sample(jax.random.key(3), 20)))
    for check in agreement.CHECKS:
        check(random)


@functools.cache
def networks_of_both():
    """Elastic networks of cells and of mixed cells, with the parameters of the first in both."""
    one = networks.build(cell.CellSpec(*SPEC), 2, 3)
    many = networks.build(SPEC, 2, 3)
    shapes = jax.eval_shape(lambda: (one.init(jax.random.key(0), jnp.zeros(6)), one.init_stats()))
    params, stats = agreement.filled(shapes)
    copied = [
        {name: p for name, p in stage.items() if name != "norm"}
        | {"norm1": stage["norm"], "norm3": stage["norm"]}
        for stage in params["stages"]
    ]
    moments = [{"norm1": of, "norm3": of} for of in stats["stages"]]
    return (one, params, stats), (many, params | {"stages": copied}, stats | {"stages": moments})


def test_a_cell_of_one_operation_an_edge_is_that_of_the_cell_space():
    """In outputs, with the same weights."""
    archs = np.concatenate([np.random.default_rng(0).integers(0, 5, (12, 6)), np.zeros((1, 6))])
    archs, given = archs.astype(np.int32), zip(networks_of_both(), (0, 1), strict=True)
    found = []
    for (network, params, stats), mixed in given:
        run = jax.jit(lambda a, n=network, p=params: n.apply(p, a, IMAGES))
        judge = jax.jit(lambda a, c, n=network, p=params, s=stats: n.apply_eval(p, s, a, IMAGES, c))
        own = as_mixed(archs) if mixed else archs
        found.append([[run(a), judge(a, False)[0], judge(a, True)[0]] for a in own])
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-5)
    assert np.ptp(np.asarray(found[0]), axis=0).max() > 0.1  # architectures differ


def test_it_costs_the_same_too():
    """Parameters and multiply-adds of all 15,625."""
    archs = base.enumerate_all(cell.make())
    for image, classes in (((32, 32, 3), 10), ((9, 7, 1), 3)):
        wanted = cost(cell.make(6, 2), image, classes)(archs)
        found = cost(mixed_cell.make(6, 2), image, classes)(as_mixed(archs))
        np.testing.assert_array_equal(np.stack(found), np.stack(wanted))


def test_operations_of_an_edge_are_added_up():
    """A network whose only edge reads the input: its output is linear in what is on."""
    edges = cell_edges.MIXED
    width, x = 3, jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    shapes = jax.eval_shape(lambda: networks.ops.realise(jax.random.key(0), edges.init((1, 6), 3)))
    p = jax.tree.map(lambda leaf: leaf[0, 2], agreement.filled(shapes))
    run = jax.jit(lambda on: edges.run(p, None, on, x, jnp.bool_(False))[0])
    alone = [run(on) for on in np.eye(4, dtype=bool)]
    np.testing.assert_array_equal(alone[0], x)
    assert alone[0].shape[-1] == width
    for on in np.array(list(np.ndindex(2, 2, 2, 2)), bool):
        wanted = sum((y for y, o in zip(alone, on, strict=True) if o), jnp.zeros_like(x))
        np.testing.assert_allclose(run(on), wanted, atol=1e-6)


@functools.cache
def by_switch():
    """(loss, its derivative in the switches) of (switches, arch): mixed, and with all that is."""
    network, params, _ = networks_of_both()[1]
    weights = jnp.linspace(-1, 1, 24).reshape(8, 3)

    def weighed(p, moments, z, x, collect):
        """Runs all operations, and weighs them by their switches."""
        ones = jnp.eye(4, dtype=bool)
        each = [cell_edges.MIXED.run(p, None, one, x, collect)[0] for one in ones]
        return sum(z[k] * y for k, y in enumerate(each)), None

    def all_of_them(z, arch):
        _, choice = cell_edges.with_switches(arch, z)
        return (networks._forward(weighed, jnp.float32, params, choice, IMAGES) * weights).sum()

    def mixed(z, arch):
        return (network.apply_mixed(params, arch, z, IMAGES) * weights).sum()

    return tuple(jax.jit(jax.value_and_grad(f)) for f in (mixed, all_of_them))


def test_derivatives_in_switches_are_what_each_operation_would_add():
    found, exact = by_switch()
    for seed in range(4):
        arch = jax.random.bernoulli(jax.random.key(seed), 0.6, (24,)).astype(jnp.int32)
        arch = jnp.asarray(mixed_cell.prune(arch))
        z = arch.reshape(6, 4).astype(jnp.float32)
        (value, slope), (wanted, wanted_slope) = found(z, arch), exact(z, arch)
        np.testing.assert_allclose(value, wanted, rtol=1e-4)
        np.testing.assert_allclose(slope, wanted_slope, atol=1e-4 * abs(slope).max())
        assert (np.abs(slope[z == 0]) > 0).any()  # of operations that did not run, too


def test_a_switch_of_an_edge_from_a_node_that_is_zero_has_no_derivative():
    arch = jnp.zeros(24, jnp.int32).at[12].set(1)  # the input alone
    _, slope = by_switch()[0](arch.reshape(6, 4).astype(jnp.float32), arch)
    assert (slope[3] != 0).all() and not slope[jnp.array([0, 1, 2, 4, 5])].any()

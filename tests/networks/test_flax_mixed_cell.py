"""Children of mixed cells and chains equal Flax networks of the same weights, and single cells."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.networks import cell as networks
from fnas_jax.networks import cell_edges, elastic
from fnas_jax.networks.cost import cost
from fnas_jax.spaces import base, cell, mixed_cell, mixed_chain
from tests.networks import agreement

SPEC = mixed_cell.MixedCellSpec(channels=4, cells_per_stage=1, stages=1)
IMAGES = jax.random.normal(jax.random.key(1), (8, 5, 7, 2))


def as_mixed(archs):
    """[N, 6] cells -> [N, 24] mixed cells with the one operation on each edge."""
    return (archs[..., None] == 1 + np.arange(4)).astype(np.int32).reshape(len(archs), -1)


@pytest.fixture(scope="module", params=["mixed_cell", "mixed_chain"])
def case(request):
    return agreement.case(request.param)


@pytest.mark.parametrize("check", agreement.CHECKS)
def test_elastic_child_equals_flax_network(case, check):
    check(case)


@pytest.mark.slow
@pytest.mark.parametrize("make", [mixed_cell.make, mixed_chain.make], ids=["cell", "chain"])
@pytest.mark.parametrize("backend", ["reference", "branched"])
def test_twenty_random_children_equal_flax_networks(make, backend, monkeypatch):
    """`branched` in float32, as its type for accelerators has three digits."""
    monkeypatch.setattr(elastic, "short_type", lambda: jnp.float32)
    space = make(channels=4, cells_per_stage=1)
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
    edges = cell_edges.of(SPEC)
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


CHAIN = mixed_chain.MixedChainSpec(*SPEC)


@functools.cache
def by_switch(mixed_chains):
    """(loss, its derivative in the switches) of (switches, arch): mixed, and with all that is."""
    spec = CHAIN if mixed_chains else SPEC
    network, edges = networks.build(spec, 2, 3), cell_edges.of(spec)
    params = agreement.filled(jax.eval_shape(network.init, jax.random.key(0), None))
    weights = jnp.linspace(-1, 1, 24).reshape(8, 3)

    def weighed(p, moments, choice, x, collect):
        """Runs all operations, and weighs them by their switches."""
        z, identity = choice
        each = [edges.run(p, None, one, x, collect)[0] for one in jnp.eye(4, dtype=bool)]
        return sum(z[k] * y for k, y in enumerate(each)) + identity * x, None

    def all_of_them(z, arch):
        _, *choice = cell_edges.with_switches(spec, arch, z)
        whole = edges._replace(run=weighed)
        return (networks._forward(whole, jnp.float32, params, choice, IMAGES) * weights).sum()

    def mixed(z, arch):
        return (network.apply_mixed(params, arch, z, IMAGES) * weights).sum()

    plain = jax.jit(lambda arch: (network.apply(params, arch, IMAGES) * weights).sum())
    return *(jax.jit(jax.value_and_grad(f)) for f in (mixed, all_of_them)), plain


@pytest.mark.parametrize("chain", [False, True], ids=["cell", "chain"])
def test_derivatives_in_switches_are_what_each_operation_would_add(chain):
    found, exact, plain = by_switch(chain)
    for seed in range(4):
        arch = jax.random.bernoulli(jax.random.key(seed), 0.6, (24,)).astype(jnp.int32)
        arch = jnp.asarray(mixed_cell.prune(arch))
        if chain:
            arch = arch[:12].at[4:8].set(arch[4:8] * (seed % 2))  # also without any operation
        z = arch.reshape(-1, 4).astype(jnp.float32)
        (value, slope), (wanted, wanted_slope) = found(z, arch), exact(z, arch)
        np.testing.assert_allclose(value, wanted, rtol=1e-4)
        np.testing.assert_allclose(value, plain(arch), rtol=1e-4)
        np.testing.assert_allclose(slope, wanted_slope, atol=1e-4 * abs(slope).max())
        assert (np.abs(slope[z == 0]) > 0).any()  # of operations that did not run, too


def test_a_switch_of_an_edge_from_a_node_that_is_zero_has_no_derivative():
    arch = jnp.zeros(24, jnp.int32).at[12].set(1)  # the input alone
    _, slope = by_switch(False)[0](arch.reshape(6, 4).astype(jnp.float32), arch)
    assert (slope[3] != 0).all() and not slope[jnp.array([0, 1, 2, 4, 5])].any()


def test_an_empty_layer_of_a_chain_is_its_shortcut():
    """So that throwing that switch changes nothing, to the derivative."""
    empty, shortcut = (jnp.asarray([0, 0, 1, 0, on, 0, 0, 0, 0, 1, 0, 1]) for on in (0, 1))
    mixed, _, plain = by_switch(True)
    np.testing.assert_array_equal(plain(empty), plain(shortcut))
    _, slope = mixed(empty.reshape(3, 4).astype(jnp.float32), empty)
    np.testing.assert_allclose(slope[1, 0], 0, atol=1e-5 * abs(slope).max())
    assert (np.abs(slope[1, 1:]) > 1e-3 * abs(slope).max()).all()

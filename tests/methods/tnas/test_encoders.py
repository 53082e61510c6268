"""What the encoders must not notice: padding, order, and how an architecture is written down."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core.types import Features
from fnas_jax.methods.tnas import features, graph_encoder, networks, set_encoder
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.spaces import categorical, cell, macro, mixed_cell, mixed_chain, mnas, mobilenetv3

CELL = cell.make()
SPACES = {
    "cell": CELL,
    "mixed_cell": mixed_cell.make(),
    "mixed_chain": mixed_chain.make(),
    "macro": macro.make(),
    "mnas": mnas.make(blocks=2),
    "mobilenetv3": mobilenetv3.make(stages=2),
    "categorical": categorical.make((3, 2, 4)),
}


# One program each, not one for every operation in them.
encode = jax.jit(graph_encoder.encode)
encode_set = jax.jit(set_encoder.encode)
embed_archs = jax.jit(networks.embed_archs, static_argnums=(0, 3))


@functools.cache
def forms_of(name, seed, n):
    """Canonical architectures of a space, drawn by one program."""
    space = SPACES[name]
    draw = jax.jit(lambda key: space.canonical(space.sample(key, n)))
    return np.asarray(draw(jax.random.key(seed)))


@functools.cache
def graphs_of(name):
    return jax.jit(functools.partial(graph_encoder.graphs, SPACES[name]))


@functools.cache
def encoder(name, extra=0):
    nodes, width = graph_encoder.sizes(SPACES[name])
    init = jax.jit(graph_encoder.init, static_argnums=(1, 2, 3, 4))
    return init(jax.random.key(0), nodes + extra, width, 8, 5)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_is_encoded_and_different_networks_differ(name):
    forms = np.unique(forms_of(name, 1, 12), axis=0)
    codes = np.asarray(encode(encoder(name), graphs_of(name)(forms)))
    assert codes.shape == (len(forms), 5)
    distance = np.abs(codes[:, None] - codes).max(axis=-1) + np.eye(len(forms))
    assert distance.min() > 1e-6


def test_padding_has_no_influence():
    p = encoder("cell", extra=3)
    graphs = jax.device_get(graphs_of("cell")(CELL.sample(jax.random.key(2), 6)))
    padded = graph_encoder.Graphs(
        np.pad(graphs.features, ((0, 0), (0, 3), (0, 0)), constant_values=7.0),
        np.pad(graphs.adjacency, ((0, 0), (0, 3), (0, 3)), constant_values=True),
        np.pad(graphs.mask, ((0, 0), (0, 3))),
    )
    got, expected = encode(p, padded), encode(p, graphs)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@given(st.integers(0, 5**6 - 1))
def test_isomorphic_cells_have_one_code(index):
    """Any cell that has the same canonical form as cell `index`."""
    form = int(cell.representatives()[index])
    twins = np.flatnonzero(cell.representatives() == form)[[0, -1]]
    archs = np.stack(np.unravel_index([index, *twins], (5,) * 6), axis=-1).astype(np.int32)
    codes = np.asarray(encode(encoder("cell"), graphs_of("cell")(archs)))
    np.testing.assert_array_equal(codes, np.broadcast_to(codes[0], codes.shape))


def test_messages_are_those_of_the_formula():
    """Node by node in numpy, from the definition."""
    p = jax.tree.map(np.asarray, encoder("cell"))
    graph = graphs_of("cell")(jnp.array([[3, 0, 2, 1, 4, 3]], jnp.int32))
    x, edges = np.asarray(graph.features[0]), np.asarray(graph.adjacency[0])

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    def walk(d, edges, order):
        h = {}
        for v in order:
            m = np.zeros(8)
            for u in h:
                if edges[u, v]:
                    gate = sigmoid(h[u] @ d.gate.w + d.gate.b + d.gate_at[u])
                    m = m + gate * (h[u] @ d.map + d.map_at[u])
            from_x, from_m = np.split(x[v] @ d.gru.x.w + d.gru.x.b, 3), np.split(m @ d.gru.h, 3)
            r, z = sigmoid(from_x[0] + from_m[0]), sigmoid(from_x[1] + from_m[1])
            h[v] = (1 - z) * np.tanh(from_x[2] + r * from_m[2]) + z * m
        return h

    ends = np.concatenate(
        [walk(p.forward, edges, range(8))[7], walk(p.backward, edges.T, range(7, -1, -1))[0]]
    )
    expected = ends @ p.project.w + p.project.b
    got = encode(jax.tree.map(jnp.asarray, p), graph)[0]
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.fixture(scope="module")
def data_sets():
    init = jax.jit(set_encoder.init, static_argnums=(1, 2, 3))
    p = init(jax.random.key(0), 6, 8, 5)
    x = np.asarray(jax.random.normal(jax.random.key(1), (2, 3, 4, 6)))
    return p, set_encoder.Sample(x, np.ones((2, 3, 4), bool))


@given(st.permutations(range(3)), st.permutations(range(4)))
def test_the_order_of_classes_and_images_does_not_matter(data_sets, classes, images):
    p, sample = data_sets
    mixed = sample._replace(features=sample.features[:, classes][:, :, images])
    expected = np.asarray(encode_set(p, sample))
    np.testing.assert_allclose(encode_set(p, mixed), expected, atol=2e-5)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3


def test_classes_and_images_that_are_masked_out_do_not_matter(data_sets):
    p, sample = data_sets
    widths = ((0, 0), (0, 2), (0, 3))
    padded = set_encoder.Sample(
        np.pad(sample.features, (*widths, (0, 0)), constant_values=9.0),
        np.pad(sample.mask, widths),
    )
    expected = encode_set(p, sample)
    np.testing.assert_allclose(encode_set(p, padded), expected, atol=2e-5)


@pytest.mark.parametrize("name", features.EXTRACTORS)
def test_features_of_any_size_and_colour_have_one_shape(name):
    rng = np.random.default_rng(0)
    sets = [rng.random((2, 5, 8, 8, 1)), rng.random((3, 4, 28, 20, 3))]
    sample = features.sample(
        [s.astype(np.float32) for s in sets], features.EXTRACTORS[name], images_per_class=4
    )
    assert sample.features.shape[:3] == (2, 3, 4)
    assert sample.mask.sum() == 2 * 4 + 3 * 4
    assert np.isfinite(sample.features).all()
    known = np.asarray(sample.features)[np.asarray(sample.mask)]
    np.testing.assert_allclose(known.mean(axis=0), 0, atol=1e-4)


def test_a_kernel_that_has_learnt_nothing_is_one_of_the_hamming_distance():
    config = Tnas(hidden=8, deep=False)
    forms = forms_of("cell", 3, 9)
    p = networks.init(jax.random.key(0), CELL, config, 0, 1)
    xi = np.asarray(embed_archs(config, p, np.zeros(16, np.float32), CELL, forms))
    squared = ((xi[:, None] - xi) ** 2).sum(axis=-1)
    np.testing.assert_allclose(squared, (forms[:, None] != forms).sum(axis=-1), atol=1e-5)


@pytest.mark.parametrize("changes", [{}, {"film": True}, {"graph_encoder": False}])
def test_the_task_moves_the_kernels_input_and_chunks_do_not(changes):
    config = Tnas(hidden=8, **changes)
    forms = forms_of("cell", 3, 5)
    p = networks.init(jax.random.key(0), CELL, config, 0, 1)
    codes = np.asarray(jax.random.normal(jax.random.key(1), (2, 16)))
    one, two = (np.asarray(embed_archs(config, p, c, CELL, forms)) for c in codes)
    assert np.abs(one - two).max() > 1e-4
    many = np.tile(forms, (networks.CHUNK // 4, 1))
    again = np.asarray(embed_archs(config, p, codes[0], CELL, many))
    np.testing.assert_allclose(again[-5:], one, atol=1e-5)


def test_codes_of_tasks_come_from_images_vectors_or_the_table():
    config = Tnas(hidden=8, code=4)
    p = networks.init(jax.random.key(0), CELL, config, 2, 6)
    codes = networks.task_codes(config, p, None)
    np.testing.assert_array_equal(codes, jnp.concatenate([p.tasks, jnp.zeros((1, 4))]))
    vectors = jnp.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    np.testing.assert_allclose(networks.task_codes(config, p, None, vectors), vectors @ p.tasks)
    off = dataclasses.replace(config, data_encoder=False)
    assert not networks.task_codes(off, p, None, vectors).any()


@pytest.mark.parametrize("name", ["categorical", "mnas"])
def test_features_are_half_of_the_mean_squared_distance_of_plain_codes(name):
    space, forms = SPACES[name], forms_of(name, 3, 300)
    numbers = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
    known = Features(tuple("abc"), lambda archs: jnp.asarray(numbers), "{}")  # row by row
    config = Tnas(hidden=8, code=4, deep=False)
    codes = jnp.zeros((300, config.code))

    def squared(space):
        p = networks.init(jax.random.key(0), space, config, 1, 1)
        xi = np.asarray(networks.embed(config, p, codes, networks.inputs(space, forms)))
        return ((xi[:, None] - xi) ** 2).sum(-1)

    plain, both = squared(space), squared(space._replace(features=known))
    apart = ((numbers[:, None] - numbers) ** 2).sum(-1) / 6
    mean = networks.mean_distance(space)
    assert plain.mean() == pytest.approx(mean, rel=0.1)
    np.testing.assert_allclose(both, (plain + mean * apart) / 2, atol=1e-3)

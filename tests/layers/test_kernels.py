"""Layers by the kernels for CPUs against the same layers by XLA's code."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.layers import compile_kernels, ops, parameters, reference
from fnas_jax.layers import kernels as kernels_lib
from fnas_jax.layers import spec as specs
from fnas_jax.layers.spec import (
    CONV,
    HARD_SWISH,
    IDENTITY,
    MBCONV,
    NO_SKIP,
    NONE,
    NORMS,
    RELU6,
    SEPCONV,
    LayerSpec,
    Slot,
)

if not compile_kernels.available():
    pytest.skip("no C++ compiler for the kernels", allow_module_level=True)

KEY = jax.random.key(0)
# (stride, widest input, widest output, pixels): odd and even sizes, kernels larger than the image
PLACES = ((1, 24, 24, 9), (2, 16, 40, 8), (2, 40, 16, 3), (1, 16, 16, 6))
WIDTHS = (8, 16, 24, 40)


KINDS = ((CONV, 1), (SEPCONV, 1), (MBCONV, 3), (MBCONV, 6))  # (op, expansion)


def spec_of(kind, kernel, cin, cout, hidden, skip, act=RELU6):
    op, expansion = KINDS[kind]
    middle = 0 if op == CONV else expansion * cin
    return LayerSpec(op, kernel, cin, middle, cout, hidden, skip, act)


def slot_of(stride, widest, widest_out, act=RELU6):
    """A place for all of KINDS, or for no layer where that keeps the shape."""
    hidden = widest // 4
    choices = [
        spec_of(kind, kernel, widest, widest_out, hidden, NO_SKIP, act)
        for kind in range(4)
        for kernel in (3, 5)
    ]
    keeps_shape = stride == 1 and widest == widest_out
    return Slot(stride, (*choices, *[specs.absent(widest)] * keeps_shape))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def differences(place, kind, short, kernel, cin, cout, hidden, skip):
    """Largest difference of every result of a layer, over the largest number of it."""
    _, widest, widest_out, side = place
    act = NONE if short else RELU6  # beside whose bends rounding changes the derivative
    slot, spec = slot_of(*place[:3], act), spec_of(kind, kernel, cin, cout, hidden, skip, act)
    params = ops.realise(KEY, parameters.init(slot, spec))
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(KEY, p.shape), params)
    used = parameters.used(slot, spec)
    into, out = jnp.arange(widest) < cin, jnp.arange(widest_out) < cout
    x = jax.random.normal(KEY, (5, side, side, widest)) * into
    # One kind of layer alone, as there is less to compile.
    alone = slot._replace(choices=slot.choices[2 * kind : 2 * kind + 2])

    def by_xla(params, x):
        return reference.apply(alone, params, x, spec)

    def by_kernels(params, x):
        return kernels_lib.apply(slot, params, x, spec, short=short)

    (y, pull), (z, pull_z) = (jax.vjp(f, params, x) for f in (by_xla, by_kernels))
    g = jax.random.normal(jax.random.key(1), y.shape) * out
    (dp, dx), (ep, ex) = pull(g), pull_z(g)
    pairs = {"y": (y, z), "dx": (dx * into, ex)}
    for path, a in jax.tree_util.tree_leaves_with_path(jax.tree.map(jnp.multiply, dp, used)):
        b = functools.reduce(lambda tree, step: tree[step.key], path, ep)
        pairs[jax.tree_util.keystr(path)] = (a, b)
    stats = jax.tree.map(lambda s: s + 0.3, parameters.zero_stats(params))
    for collect in (False, True):
        given = (params, x, spec, stats, jnp.bool_(collect))
        a, moments = reference.apply_eval(alone, *given)
        b, found = kernels_lib.apply_eval(slot, *given, short=short)
        pairs[f"evaluated {collect}"] = (a, b)
    width = jnp.arange(widest_out) < cout
    pairs["mean"] = (moments["norm_out"].mean * width, found["norm_out"].mean)
    pairs["var"] = (moments["norm_out"].var * width, found["norm_out"].var)
    return {
        name: jnp.max(jnp.abs(a - b)) / (1e-2 + jnp.max(jnp.abs(a)))
        for name, (a, b) in pairs.items()
    }


def drawn(data, places):
    """(place, the numbers of `differences`)"""
    place = data.draw(st.sampled_from(places))
    cin = data.draw(st.sampled_from([w for w in WIDTHS if w <= place[1]]))
    cout = data.draw(st.sampled_from([w for w in WIDTHS if w <= place[2]]))
    kernel, se = data.draw(st.sampled_from([3, 5])), data.draw(st.booleans())
    skip = data.draw(st.integers(0, 2))
    if skip == IDENTITY and (place[0] > 1 or cin != cout):
        skip = NO_SKIP
    return place, [jnp.int32(v) for v in (kernel, cin, cout, se * max(1, cin // 4), skip)]


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        pytest.param(0, PLACES[1:2], id="conv"),
        pytest.param(0, PLACES[3:], id="conv, whole vectors"),
        pytest.param(1, PLACES[1:2], id="sepconv"),
        pytest.param(2, PLACES[1:2], id="mbconv3"),
        pytest.param(3, PLACES[:3:2], id="mbconv6"),  # which has every kind of tensor but conv's
        pytest.param(0, PLACES[:3:2], id="conv elsewhere", marks=pytest.mark.slow),
        pytest.param(3, PLACES[1:2], id="mbconv6 elsewhere", marks=pytest.mark.slow),
    ],
)
@given(data=st.data())
@settings(max_examples=12)
def test_layers_are_those_of_xla(kind, places, data):
    place, numbers = drawn(data, places)
    found = differences(place, kind, False, *numbers)
    worst = max(found, key=lambda name: found[name])
    assert found[worst] < 3e-4, worst


@pytest.mark.parametrize(
    ("kind", "places"),
    [
        pytest.param(3, PLACES[:1], id="mbconv6"),
        pytest.param(0, PLACES[3:], id="conv"),
        pytest.param(0, PLACES[:3], id="conv elsewhere", marks=pytest.mark.slow),
        pytest.param(1, PLACES[:1], id="sepconv", marks=pytest.mark.slow),
    ],
)
@given(data=st.data())
@settings(max_examples=12)
def test_short_products_differ_by_their_rounding(kind, places, data):
    """Factors and what is kept are rounded to 8 bits: a few hundredths of the largest number."""
    place, numbers = drawn(data, places)
    found = differences(place, kind, True, *numbers)
    # Without activations the next normalisation takes away what these add, and the factor of the
    # first, which every channel has to itself: no derivative.
    for norm, part in (
        ("norm_expand", "bias"),
        ("norm_expand", "scale"),
        ("norm_depthwise", "bias"),
    ):
        found.pop(f"['{norm}']['{part}']", None)
    assert found["y"] > 1e-5, "the numbers are not short"
    worst = max(found, key=lambda name: found[name])
    assert found[worst] < 0.08, worst


@pytest.mark.parametrize(
    ("kernel", "stride", "side", "cin", "cout"),
    [
        *((1, 1, 5, 24, 40), (3, 1, 18, 24, 40), (5, 2, 9, 24, 40), (7, 1, 6, 24, 40)),
        # Odd depths, which products pad, few channels, and a kernel larger than the image
        *((3, 1, 7, 3, 5), (3, 1, 6, 9, 3), (1, 2, 5, 1, 17), (7, 2, 4, 5, 16)),
    ],
)
def test_short_products_of_short_numbers_are_exact(kernel, stride, side, cin, cout):
    """What bfloat16 holds exactly is multiplied, summed and kept as in float32: all places count.

    The sums are whole numbers below 256.
    """
    spec = LayerSpec(CONV, kernel, cin, 0, cout, 0, NO_SKIP, RELU6)
    slot = Slot(stride, (spec,))

    def whole(key, shape, most=2):
        return jax.random.randint(key, shape, -most, most + 1).astype(jnp.float32)

    params = ops.realise(KEY, parameters.init(slot, spec))
    name = "conv" if "conv" in params else "shortcut"
    few = jax.random.bernoulli(KEY, 0.1, params[name].shape)
    params[name] = few * whole(KEY, few.shape, 4)
    x = whole(jax.random.key(1), (3, side, side, cin))
    a, b = (
        jax.jit(lambda s=s: kernels_lib.apply(slot, params, x, spec, short=s))() for s in (0, 1)
    )
    np.testing.assert_allclose(a, b, atol=1e-5)

    def derivatives(short):
        def of(params, x):
            return kernels_lib.apply(slot, params, x, spec._replace(act=NONE), short=short)

        y, pull = jax.vjp(of, params, x)
        return pull(jnp.sin(jnp.arange(y.size)).reshape(y.shape))

    (dp, dx), (ep, ex) = (jax.jit(derivatives, static_argnums=0)(short) for short in (False, True))
    assert jnp.any(dx != ex)
    for exact, rounded in ((dx, ex), (dp[name], ep[name])):
        assert jnp.max(jnp.abs(exact - rounded)) < 0.02 * jnp.max(jnp.abs(exact))


FACTOR = 1.0078125  # a bfloat16 number; products with others have twice as many bits


def scaled(op, x, normalised, bias=0.0):
    """(y, moments) of a layer whose 1x1 convolutions multiply by FACTOR, and the others by 1."""
    channels = x.shape[-1]
    middle = 0 if op == CONV else channels
    spec = LayerSpec(op, 1, channels, middle, channels, 0, NO_SKIP, NONE)
    slot = Slot(1, (spec,))
    params = ops.realise(KEY, parameters.init(slot, spec))
    for name in {"conv", "shortcut", "expand", "project"} & set(params):
        params[name] = FACTOR * jnp.eye(channels).reshape(params[name].shape)
    if op != CONV:
        params["depthwise"] = jnp.ones_like(params["depthwise"])
        params["norm_depthwise"]["bias"] += bias
    stats = parameters.zero_stats(params)
    one = jnp.full(channels, 1 - ops.BN_EPSILON)
    stats = {name: moments._replace(var=one) for name, moments in stats.items()}
    return kernels_lib.apply_eval(slot, params, x, spec, stats, jnp.bool_(normalised), short=True)


def rounded(x):
    """To bfloat16 numbers."""
    return jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32)


def test_numbers_are_rounded_to_the_nearest_of_two_the_even_one():
    bits = np.random.default_rng(0).integers(0x3F000000, 0x41000000, (2, 5, 5, 24), np.uint32)
    bits[0] = bits[0] & 0xFFFF0000 | 0x8000  # in the middle between two
    bits[:, 0] |= 0x80000000
    x = jnp.asarray(bits.view(np.float32))
    expected = rounded(rounded(x) * FACTOR)
    np.testing.assert_allclose(scaled(CONV, x, False)[0], expected, rtol=3e-7)
    assert (rounded(x) * FACTOR != expected).mean() > 0.9, "one rounding of two does nothing"


def moments_of(x):
    x = np.asarray(x, np.float64)
    return x.mean((0, 1, 2)), x.var((0, 1, 2))


@pytest.mark.parametrize(("op", "norm"), [(CONV, "norm_out"), (MBCONV, "norm_expand")])
def test_moments_are_those_of_the_numbers_that_are_kept(op, norm):
    """Far from 0 all are rounded by a good part of their deviation."""
    x = 100 + jax.random.normal(KEY, (4, 8, 8, 16))
    kept = rounded(rounded(x) * FACTOR)
    mean, var = moments_of(kept)
    y, found = scaled(op, x, True)
    np.testing.assert_allclose(found[norm].mean, mean, atol=1e-4)
    np.testing.assert_allclose(found[norm].var, var, atol=2e-2)
    if op == CONV:
        expected = (np.asarray(kept) - mean) / np.sqrt(var + ops.BN_EPSILON)
        np.testing.assert_allclose(y, expected, atol=2e-3)


def test_moments_of_a_projection_are_those_of_what_is_kept():
    x = jax.random.normal(KEY, (4, 8, 8, 16))
    filtered = np.asarray(rounded(x), np.float64)
    mean, var = moments_of(filtered)
    rows = rounded(np.float32((filtered - mean) / np.sqrt(var + ops.BN_EPSILON) + 100))
    kept = rounded(rows * FACTOR)
    found = scaled(SEPCONV, x, True, bias=100.0)[1]["norm_out"]
    np.testing.assert_allclose(found.mean, moments_of(kept)[0], atol=3e-3)


def layer(x, kind=3, short=False):
    slot = slot_of(1, 8, 8)
    spec = specs.absent(8) if kind == 4 else spec_of(kind, 3, 8, 8, 0, NO_SKIP)
    params = ops.realise(KEY, parameters.init(slot, spec))
    return kernels_lib.apply(slot, params, x, spec, short=short)


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("kind", range(4))
def test_what_is_not_a_number_stays_so(kind, short):
    x = jnp.ones((2, 4, 4, 8)).at[0, 0, 0, 0].set(jnp.nan)
    y, pull = jax.vjp(lambda x: layer(x, kind, short), x)
    assert jnp.isnan(y).any()
    assert jnp.isnan(pull(jnp.ones_like(y))[0]).any()


def test_a_layer_that_is_not_there_passes_everything_on():
    x = jax.random.normal(KEY, (2, 4, 4, 8))
    y, pull = jax.vjp(lambda x: layer(x, kind=4), x)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(pull(2 * x)[0], 2 * x)


def test_under_vmap_each_is_itself():
    x = jax.random.normal(KEY, (3, 2, 4, 4, 8))
    # In turn or alone, the very same instructions run.
    together = jax.jit(jax.vmap(layer))(x)
    np.testing.assert_array_equal(together, jnp.stack([jax.jit(layer)(one) for one in x]))


def test_the_input_of_a_root_has_no_derivative():
    spec = spec_of(0, 3, 8, 8, 0, NO_SKIP)
    params = {"conv": jnp.ones((3, 3, 8, 8)), "norm_out": ops.norm_params(8)}
    x = jax.random.normal(KEY, (2, 4, 4, 8))

    def loss(params, x, root):
        return (kernels_lib.apply(Slot(1, (spec,)), params, x, spec, root) ** 2).sum()

    (dp, dx), (ep, ex) = (jax.grad(loss, (0, 1))(params, x, root) for root in (False, True))
    jax.tree.map(np.testing.assert_array_equal, dp, ep)
    assert (dx != 0).any() and (ex == 0).all()


CIN, MIDDLE, COUT, HIDDEN = 10, 30, 20, 3  # of the layers below


def random_arrays(seed, op, kernel, gated):
    """The arrays of a layer that has squeeze-excitation, in the order of layer.h."""
    middle = {CONV: 0, SEPCONV: CIN, MBCONV: MIDDLE}[op]
    conv = (kernel, kernel, CIN, COUT) if op == CONV else (0,)
    depthwise, project = ((kernel, kernel, middle), (middle, COUT)) if middle else ((0,), (0,))
    expand, norm = ((CIN, MIDDLE), MIDDLE) if op == MBCONV else ((0,), 0)
    norms = [(norm,), (middle,), (COUT,)]
    squeeze = [(gated, HIDDEN), (HIDDEN,), (HIDDEN, gated), (gated,)]
    shapes = [conv, expand, depthwise, project, *norms, *norms, *squeeze]
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


NAMES = (
    *(("conv",), ("expand",), ("depthwise",), ("project",)),
    *((name, part) for part in ("scale", "bias") for name in NORMS),
    *(("se", name) for name in ("w1", "b1", "w2", "b2")),
)


def named(arrays):
    """The arrays of `random_arrays` as the parameters of a layer."""
    params = {}
    for (*branch, name), array in zip(NAMES, arrays, strict=True):
        if array.size:
            (params.setdefault(branch[0], {}) if branch else params)[name] = array
    return params


def plain_layer(op, stride, arrays, x, moments=None):
    """The layer in plain JAX, hard-swish and squeeze-excitation in it; `moments` of its norms."""
    conv, expand, depthwise, project, *norms, w1, b1, w2, b2 = arrays

    def norm(n, h):
        mean, var = moments[n] if moments else (h.mean((0, 1, 2)), h.var((0, 1, 2)))
        return (h - mean) / jnp.sqrt(var + ops.BN_EPSILON) * norms[n] + norms[3 + n]

    def gate(h):
        units = jax.nn.relu(h.mean((1, 2)) @ w1 + b1)
        return h * jax.nn.sigmoid(units @ w2 + b2)[:, None, None]

    def convolve(h, weights, groups=1):
        layouts = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            h,
            weights,
            (stride, stride),
            "SAME",
            dimension_numbers=layouts,
            feature_group_count=groups,
        )

    if op == CONV:
        return gate(jax.nn.hard_swish(norm(2, convolve(x, conv))))
    h = jax.nn.hard_swish(norm(0, x @ expand)) if op == MBCONV else x
    h = convolve(h, depthwise[:, :, None], h.shape[-1])
    return norm(2, gate(jax.nn.hard_swish(norm(1, h))) @ project)


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("op", [CONV, SEPCONV, MBCONV], ids=["conv", "sepconv", "mbconv"])
def test_hard_swish_is_that_of_plain_jax(op, stride, kernel):
    middle = {CONV: 0, SEPCONV: CIN, MBCONV: MIDDLE}[op]
    arrays = random_arrays(1, op, kernel, gated=middle or COUT)
    x = jax.random.normal(KEY, (4, 9, 6, CIN))
    spec = LayerSpec(op, kernel, CIN, middle, COUT, HIDDEN, NO_SKIP, HARD_SWISH)
    slot = Slot(stride, (spec,))

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_derivatives(layer, arrays, x):
        y, pull = jax.vjp(layer, arrays, x)
        return y, pull(jax.random.normal(jax.random.key(2), y.shape))

    plain = functools.partial(plain_layer, op, stride)
    y, expected = value_and_derivatives(plain, arrays, x)

    def by_kernels(arrays, x):
        return kernels_lib.apply(slot, named(arrays), x, spec)

    z, found = value_and_derivatives(by_kernels, arrays, x)
    pairs = zip(jax.tree.leaves((y, expected)), jax.tree.leaves((z, found)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=1e-4 * (1 + np.abs(a).max(initial=0)))

    rng = np.random.default_rng(3)
    moments = [(rng.normal(size=n.shape).astype(np.float32), 0.5 + n**2) for n in arrays[4:7]]
    stats = {n: ops.Moments(*m) for n, m in zip(NORMS, moments, strict=True) if m[0].size}
    evaluated, _ = kernels_lib.apply_eval(slot, named(arrays), x, spec, stats, jnp.int32(0))
    expected = jax.jit(plain)(arrays, x, moments)
    np.testing.assert_allclose(expected, evaluated, atol=1e-4 * np.abs(expected).max())


def test_hard_swish_is_exact_where_it_has_corners():
    # Without spread, what is normalised is its bias.
    bias = jnp.float32([-4.0, -3.0, -1.5, 0.0, 3.0, 5.0])
    none, channels = jnp.zeros(0), len(bias)
    norms = (none, none, jnp.ones(channels), none, none, bias)
    arrays = (jnp.zeros((1, 1, 1, channels)), none, none, none, *norms, *[none] * 4)
    spec = LayerSpec(CONV, 1, 1, 0, channels, 0, NO_SKIP, HARD_SWISH)
    x, slot = jnp.ones((1, 1, 1, 1)), Slot(1, (spec,))
    y, pull = jax.vjp(lambda a: kernels_lib.apply(slot, named(a), x, spec), arrays)
    np.testing.assert_allclose(y[0, 0, 0], jax.nn.hard_swish(bias), rtol=1e-6)
    slopes = pull(jnp.ones_like(y))[0][9]
    np.testing.assert_allclose(slopes, [0, 0, 0, 0.5, 1, 1], atol=1e-6)


CHANGES = [{"kernel": 5}, {"kernel": 2}, {"cin": 9}, {"cout": 9}, {"se_hidden": 3}, {"act": 8}]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_child_that_does_not_fit_its_arrays_is_refused(change):
    none, ones = jnp.zeros(0), jnp.ones(8)
    arrays = (jnp.ones((3, 3, 8, 8)), none, none, none, none, none, ones, none, none, ones)
    arrays = (*arrays, *[none] * 4)
    x, spec = jnp.ones((1, 4, 4, 8)), LayerSpec(CONV, 3, 8, 0, 8, 0, NO_SKIP, RELU6)
    slot, params = Slot(1, (spec,)), named(arrays)
    kernels_lib.apply(slot, params, x, spec)
    with pytest.raises(Exception, match="sizes of a layer are out of range"):
        changed = spec._replace(**change)
        jax.block_until_ready(kernels_lib.apply(slot, params, x, changed))


def packed_slot(leading=()):
    """(a slot, a spec of it, parameters and statistics of layers stacked along `leading`)."""
    spec = LayerSpec(MBCONV, 3, 8, 24, 8, 2, NO_SKIP, RELU6)
    slot = Slot(1, (spec, spec._replace(op=CONV, kernel=5, middle=0)))
    stacked = LayerSpec(*(jnp.full(leading, field) for field in spec))
    params = ops.realise(KEY, parameters.init(slot, stacked, leading))
    zeros = parameters.zero_stats(params)
    numbered = [leaf + 1.0 + i for i, leaf in enumerate(jax.tree.leaves(zeros))]
    return slot, spec, params, jax.tree.unflatten(jax.tree.structure(zeros), numbered)


@pytest.mark.parametrize("leading", [(), (3,)], ids=["one", "stacked"])
def test_what_is_packed_is_unpacked(leading):
    slot, _, params, stats = packed_slot(leading)
    vector, moments = kernels_lib.pack(params), kernels_lib.pack_stats(stats)
    assert vector.shape == (
        *leading,
        sum(leaf.size for leaf in jax.tree.leaves(params)) // 3 ** len(leading),
    )
    chex.assert_trees_all_equal(kernels_lib.unpack(slot, vector), params)
    chex.assert_trees_all_equal(kernels_lib.unpack_stats(slot, moments), stats)


def test_one_choice_of_a_wider_slot_is_judged_by_the_slots_parameters():
    slot, spec, params, stats = packed_slot()
    x, alone = jax.random.normal(KEY, (2, 4, 4, 8)), Slot(1, (spec,))
    found = [
        kernels_lib.apply_eval(s, params, x, spec, stats, jnp.bool_(True)) for s in (slot, alone)
    ]
    chex.assert_trees_all_equal(*found)


def test_packed_layers_are_the_same_layers():
    slot, spec, params, stats = packed_slot()
    vector, moments = kernels_lib.pack(params), kernels_lib.pack_stats(stats)
    x, row, no = jax.random.normal(KEY, (2, 4, 4, 8)), kernels_lib.rows(spec), jnp.bool_(False)
    y, z = kernels_lib.apply(slot, params, x, spec), kernels_lib.apply(slot, vector, x, row)
    np.testing.assert_array_equal(y, z)
    y, found = kernels_lib.apply_eval(slot, params, x, spec, stats, no)
    z, packed = kernels_lib.apply_eval(slot, vector, x, row, moments, no)
    np.testing.assert_array_equal(y, z)
    chex.assert_trees_all_equal(found, kernels_lib.unpack_stats(slot, packed))


def test_what_is_kept_grows_in_whole_vectors():
    size = functools.partial(compile_kernels.kept_size, images=2, in_pixels=16, out_pixels=4)
    # 2 images x (results, pooled and gate, hidden units), and mean and deviation of each norm
    lanes = size(middle=0, cout=1, hidden=0) // (2 * (4 + 2) + 2)
    assert lanes in (4, 8, 16)  # floats that a register holds
    one, five, eight, twenty = (-(-n // lanes) * lanes for n in (1, 5, 8, 20))
    # Results as bfloat16 numbers are half as many floats, the others are as they were.
    assert size(middle=20, cout=8, hidden=5, short=True) == (
        2 * (8 * twenty + 2 * twenty + 2 * eight + 2 * twenty + five) + 2 * (2 * twenty + eight)
    )
    assert size(middle=0, cout=1, hidden=0) == 2 * (4 + 2) * one + 2 * one
    assert size(middle=20, cout=8, hidden=5) == (
        2 * (16 * twenty + 4 * twenty + 4 * eight + 2 * twenty + five) + 2 * (2 * twenty + eight)
    )

"""Networks that are a stem, stacks of mobile layers and a head: elastic ones, or of one child."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.layers import ops, parameters
from fnas_jax.layers.choose import Backend, scan
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.spec import CONV, NO_SKIP, NONE, LayerSpec, Slot
from fnas_jax.networks import dense, mobile_spaces
from fnas_jax.networks.base import Network, Packing, Parts, Stats
from fnas_jax.networks.dense import Dense, Outputs


class Context(NamedTuple):
    """What the network is compiled for."""

    slots: tuple[tuple[Slot, ...], ...]  # of each stack: the first layer's, then equal ones
    layers: Callable[[Array], LayerSpec]  # arch [T] -> fields [L], of all slots in order
    stem: int  # channels
    stem_stride: int
    head: int  # channels; 0: no head
    mix: int  # units of a linear layer between average and classifier; 0: none
    act: int  # of stem, head and that layer
    channels: int  # of images
    classes: Outputs
    backend: Backend


def elastic(spec: Any, channels: int, classes: Outputs, backend: Backend) -> Context:
    """The context of all children of a space of `mobile_spaces`."""
    layers = functools.partial(mobile_spaces.layers, spec)
    slots, act = mobile_spaces.slots(spec), mobile_spaces.act(spec)
    ends = (spec.stem, spec.stem_stride, spec.head, mobile_spaces.mix(spec), act)
    return Context(slots, layers, *ends, channels, classes, backend)


def fixed(spec: Any, arch: Any, channels: int, classes: Outputs, backend: Backend) -> Context:
    """The context of the one architecture `arch` [T]: each of its layers is a stack."""
    found = mobile_spaces.layers_of(spec, arch)
    rows = LayerSpec(*np.asarray([layer for *_, layer in found], np.int32).T)
    slots = tuple((Slot(stride, (layer,)),) for _, _, stride, layer in found)
    return elastic(spec, channels, classes, backend)._replace(slots=slots, layers=lambda _: rows)


def exact(spec: Any, arch: Any, channels: int, classes: Outputs, backend: Backend) -> Context:
    """The context of `arch` [T] with the parameters of all children, of which it reads its own.

    Its layers are numbers, as `backend` has to be `choose.exact_in`.
    """
    rows = LayerSpec(*np.broadcast_arrays(*mobile_spaces.layers(spec, np.asarray(arch, np.int32))))
    return elastic(spec, channels, classes, backend)._replace(layers=functools.partial(_as, rows))


def _as(rows: LayerSpec, arch: Array) -> LayerSpec:
    """`rows`, whatever the architecture."""
    return rows


def network(c: Context, by_layer: bool = False) -> Network:
    """Stem 3x3, the stacks, 1x1 head (none if 0), average over pixels, linear classifier.

    Between the last two perhaps another linear layer, as in MobileNetV3 (arXiv 1905.02244).
    `Dense`: instead of the average and the classifier, logits at every pixel.
    The blocks of `Network.parts` are the stacks, or their layers (`by_layer`).
    """
    bind: Any = functools.partial
    if by_layer:
        divide = bind(split_layers, c), bind(join_layers, c), bind(used, c), bind(_no_bypass, c)
    else:
        divide = split, join, bind(used, c), bind(bypassed, c)
    return Network(
        init=bind(init, c),
        init_stats=bind(init_stats, c),
        apply=bind(apply, c),
        apply_eval=bind(apply_eval, c),
        parts=Parts(*divide),
        packing=Packing(*(bind(_map_layers, c, function) for function in c.backend.packing[:4])),
    )


# ---- parameters


def init(c: Context, key: Array, arch: Array) -> Params:
    """See `Network`."""
    specs, outputs = c.layers(arch), dense.count(c.classes)
    last, active = c.slots[-1][-1].widest("cout"), specs.cout[-1]
    params: Params = {
        "stem": ops.he_normal((3, 3, c.channels, c.stem), 9 * c.channels),
        "stem_norm": ops.norm_params(c.stem),
        "stacks": _by_stack(parameters.init, c, specs),
        "bias": jnp.zeros(outputs),
    }
    if c.head:
        params["head"] = ops.he_normal((last, c.head), active)
        params["head_norm"] = ops.norm_params(c.head)
        last = active = c.head
    if c.mix:
        params["mix"] = ops.he_normal((last, c.mix), active)
        params["mix_bias"] = jnp.zeros(c.mix)
        last = active = c.mix
    # Half of He's variance: no rectifier follows the classifier.
    params["classifier"] = ops.he_normal((last, outputs), 2 * active)
    if isinstance(c.classes, Dense):
        params["scores"] = [ops.he_normal((w, outputs), 2 * n) for w, n in _skips(c, specs.cout)]
    return ops.realise(key, params)


def init_stats(c: Context) -> Stats:
    """See `Network`."""
    widest = [slot.choices[0] for stack in c.slots for slot in stack]
    specs = LayerSpec(*np.asarray(widest, np.int32).T)
    shapes = jax.eval_shape(
        lambda: ops.realise(jax.random.key(0), _by_stack(parameters.init, c, specs))
    )
    stats: Stats = {
        "stem": ops.zero_moments(ops.norm_params(c.stem)),
        "stacks": [
            {part: parameters.zero_stats(layer) for part, layer in stack.items()}
            for stack in shapes
        ],
    }
    if c.head:
        stats["head"] = ops.zero_moments(ops.norm_params(c.head))
    return stats


def used(c: Context, arch: Array) -> Params:
    """See `Parts`."""
    specs = c.layers(arch)
    shapes = jax.eval_shape(functools.partial(init, c), jax.random.key(0), arch)
    found = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), shapes)
    found["stacks"] = _by_stack(parameters.used, c, specs)
    reader = "head" if c.head else "mix" if c.mix else "classifier"
    found[reader] &= (jnp.arange(c.slots[-1][-1].widest("cout")) < specs.cout[-1])[:, None]
    if isinstance(c.classes, Dense):
        skips = _skips(c, specs.cout)
        found["scores"] = [
            score & (jnp.arange(w) < n)[:, None]
            for score, (w, n) in zip(found["scores"], skips, strict=True)
        ]
    return found


def _skips(c: Context, cout: Any) -> list[tuple[int, Any]]:
    """(widest, active) channels of each output that is the last of its resolution.

    But for the features, which the classifier reads. `cout` [L] are the active channels of slots.
    """
    found, last, end = [], (c.stem, c.stem), 0
    for slots in c.slots:
        if slots[0].stride > 1:
            found.append(last)
        end += len(slots)
        last = slots[-1].widest("cout"), cout[end - 1]
    return found


def _by_stack(function: Callable[..., Params], c: Context, specs: LayerSpec) -> list[Params]:
    """`function`, of `layers.parameters`, of the layers of each stack."""
    stacks = []
    for slots, (first, rest) in _stacks(c, specs):
        stacks.append({"first": function(slots[0], first)})
        if len(slots) > 1:
            stacks[-1]["rest"] = function(slots[1], rest, (len(slots) - 1,))
    return stacks


def _map_layers(c: Context, function: Callable[[Slot, Any], Any], tree: Any) -> Any:
    """Parameters or statistics, with `function` of the layers of each slot, equal ones stacked."""
    stacks = []
    for slots, stack in zip(c.slots, tree["stacks"], strict=True):
        places = {"first": slots[0], "rest": slots[-1]}
        stacks.append({name: function(places[name], layer) for name, layer in stack.items()})
    return tree | {"stacks": stacks}


def _stacks(c: Context, layers: Any) -> Iterator[tuple[tuple[Slot, ...], tuple[Any, Any]]]:
    """The slots of each stack, and of a tree of arrays [L, ..] its (first, other) layers."""
    start = 0
    for slots in c.slots:
        end = start + len(slots)
        first = jax.tree.map(lambda leaf, i=start: leaf[i], layers)
        yield slots, (first, jax.tree.map(lambda leaf, i=start + 1, j=end: leaf[i:j], layers))
        start = end


# ---- blocks


def split(params: Params) -> tuple[list[Params], Params]:
    """See `Parts`: blocks are stacks."""
    return params["stacks"], {name: p for name, p in params.items() if name != "stacks"}


def join(blocks: list[Params], shared: Params) -> Params:
    """The inverse of `split`."""
    return shared | {"stacks": blocks}


def bypassed(c: Context, arch: Array) -> list[Array]:
    """See `Parts`: of the layers behind the first of each stack."""
    return [rest.skip != NO_SKIP for _, (_, rest) in _stacks(c, c.layers(arch))]


def split_layers(c: Context, params: Params) -> tuple[list[Params], Params]:
    """See `Parts`: blocks are layers."""
    stacks, shared = split(params)
    layers: list[Params] = []
    for stack, slots in zip(stacks, c.slots, strict=True):
        rest = [jax.tree.map(lambda p, i=i: p[i], stack["rest"]) for i in range(len(slots) - 1)]
        layers += [{"first": layer} for layer in (stack["first"], *rest)]
    return layers, shared


def join_layers(c: Context, blocks: list[Params], shared: Params) -> Params:
    """The inverse of `split_layers`."""
    layers, stacks = iter(block["first"] for block in blocks), []
    for slots in c.slots:
        stacks.append({"first": next(layers)})
        if len(slots) > 1:
            rest = [next(layers) for _ in slots[1:]]
            stacks[-1]["rest"] = jax.tree.map(lambda *p: jnp.stack(p), *rest)
    return join(stacks, shared)


def _no_bypass(c: Context, arch: Array) -> list[Array]:
    """See `Parts`: no layer stands behind the first of a block."""
    return [jnp.zeros(0, bool)] * sum(map(len, c.slots))


# ---- forward


def apply(c: Context, params: Params, arch: Array, images: Array) -> Array:
    """See `Network`."""
    specs = c.layers(arch)
    return forward(c, params, c.backend.packing.rows(specs), specs.cout[-1], images)


def forward(c: Context, params: Params, layers: Any, features: Any, images: Array) -> Array:
    """Logits in training; `layers` is what the backend reads of each slot, a tree of [L, ..].

    `features`: active channels of the last layer.
    """
    slot, p, spec = _stem(c, params)
    x, skips = c.backend.apply(slot, p, images, spec, True), []
    for stack, (slots, (first, rest)) in zip(params["stacks"], _stacks(c, layers), strict=True):
        if slots[0].stride > 1:
            skips.append(x)
        x = c.backend.apply(slots[0], stack["first"], x, first)
        if len(slots) > 1:
            step = functools.partial(_step, c, slots[1])
            x, _ = scan(c.backend, step, x, (stack["rest"], rest))
    if c.head:
        slot, p, spec = _head(c, params, features)
        x = c.backend.apply(slot, p, x, spec)
    return logits(c, params, skips, x, images)


def _step(c: Context, slot: Slot, x: Array, layer: tuple[Params, Any]) -> tuple[Array, None]:
    params, spec = layer
    return c.backend.apply(slot, params, x, spec), None


def apply_eval(
    c: Context, params: Params, stats: Stats, arch: Array, images: Array, collect: Array
) -> tuple[Array, Stats]:
    """See `Network`."""
    specs = c.layers(arch)
    rows = c.backend.packing.rows(specs)
    new: Stats = {"stacks": []}
    skips = []
    x, new["stem"] = _end_eval(c, *_stem(c, params), images, stats["stem"], collect)
    for p, s, (slots, (first, rest)) in zip(
        params["stacks"], stats["stacks"], _stacks(c, rows), strict=True
    ):
        if slots[0].stride > 1:
            skips.append(x)
        x, found = c.backend.apply_eval(slots[0], p["first"], x, first, s["first"], collect)
        new["stacks"].append({"first": found})
        if len(slots) > 1:
            step = functools.partial(_step_eval, c, slots[1], collect)
            x, found = scan(c.backend, step, x, (p["rest"], rest, s["rest"]))
            new["stacks"][-1]["rest"] = found
    if c.head:
        head = _head(c, params, specs.cout[-1])
        x, new["head"] = _end_eval(c, *head, x, stats["head"], collect)
    return logits(c, params, skips, x, images), new


def _step_eval(
    c: Context, slot: Slot, collect: Array, x: Array, layer: tuple[Params, Any, Stats]
) -> tuple[Array, Stats]:
    return c.backend.apply_eval(slot, layer[0], x, layer[1], layer[2], collect)


def _end_eval(
    c: Context,
    slot: Slot,
    params: Params,
    spec: LayerSpec,
    x: Array,
    moments: Moments,
    collect: Array,
) -> tuple[Array, Moments]:
    """Stem or head outside training."""
    x, stats = c.backend.apply_eval(slot, params, x, spec, {"norm_out": moments}, collect)
    return x, stats["norm_out"]


def stem_slot(c: Context) -> Slot:
    """The slot of the stem, a layer of one choice."""
    return Slot(c.stem_stride, (LayerSpec(CONV, 3, c.channels, 0, c.stem, 0, NO_SKIP, c.act),))


def head_slot(c: Context) -> Slot:
    """The slot of the head, a layer of one choice that reads as many channels as there are."""
    last = c.slots[-1][-1]
    widest = LayerSpec(CONV, 1, last.widest("cout"), 0, c.head, 0, NO_SKIP, c.act)
    return Slot(1, (widest,), tuple(sorted({(cout, c.head) for _, cout in last.widths})))


def _stem(c: Context, params: Params) -> tuple[Slot, Params, LayerSpec]:
    slot = stem_slot(c)
    return slot, {"conv": params["stem"], "norm_out": params["stem_norm"]}, slot.choices[0]


def _head(c: Context, params: Params, features: Any) -> tuple[Slot, Params, LayerSpec]:
    slot = head_slot(c)
    p = {"shortcut": params["head"], "norm_out": params["head_norm"]}
    return slot, p, slot.choices[0]._replace(cin=features)


def logits(c: Context, params: Params, skips: list[Array], x: Array, images: Array) -> Array:
    """Logits of the features x; `skips` are the last outputs of the resolutions before theirs."""
    dense_outputs = isinstance(c.classes, Dense)
    if not dense_outputs:
        x = x.mean((1, 2), ops.sum_type(x))
    if not c.head:  # a layer may be as wide as its child's only
        x = ops.fit_channels(x, c.slots[-1][-1].widest("cout"))
    if c.mix:
        x = ops.activate(c.act, x @ params["mix"] + params["mix_bias"])
        x = x if c.act == NONE else ops.watched(x, params, c.mix)
    if not dense_outputs:
        return x @ params["classifier"] + params["bias"]
    scores = [
        ops.fit_channels(skip, len(score)) @ score
        for skip, score in zip(skips, params["scores"], strict=True)
    ]
    last = x @ params["classifier"] + params["bias"]
    return dense.total([*scores, last], images.shape[1:3])

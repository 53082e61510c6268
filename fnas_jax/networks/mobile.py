"""Elastic networks that are a stem, stacks of equal layers and a head: MNAS and Macro."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from fnas_jax.core.types import Array
from fnas_jax.layers import ops, parameters, reference
from fnas_jax.layers.backends import Backend
from fnas_jax.layers.ops import Params
from fnas_jax.layers.reference import SKIP_NONE, Evaluation, Setting, Variant
from fnas_jax.networks.base import Network, Parts, Stats


class Stack(NamedTuple):
    """The static part of one stack: its first layer, and `depth - 1` equal ones behind it."""

    cin: int  # widest input
    cout: int  # widest output
    depth: int  # most layers
    first: tuple[Variant, ...]  # branches of the first layer
    rest: tuple[Variant, ...]  # branches of the others, in the same order
    se: bool  # whether layers hold squeeze-excitation


class Choice(NamedTuple):
    """What an architecture makes of one stack."""

    variant: Array  # branch of the first layer
    setting: Setting  # of the first layer
    rest: Array  # [depth - 1] int32 branch of each other layer; len(Stack.rest): no layer
    rest_skip: Array  # [depth - 1] int32 skip operation of each other layer


def network(
    *,
    stacks: tuple[Stack, ...],
    choose: Any,
    stem: int,
    stem_stride: int,
    head: int,
    act: str,
    channels: int,
    classes: int,
    decisions: int,
    backend: Backend,
    by_layer: bool = False,
) -> Network:
    """Stem 3x3, the stacks, 1x1 head (none if 0), average over pixels, linear classifier.

    `choose(arch [T]) -> list[Choice]`, one a stack. The blocks of `Network.parts` are the stacks,
    or their layers where they are chosen one by one (`by_layer`). `form`: how layers run.
    """
    sizes = (stem, stem_stride, head, act, channels, classes, decisions)
    net = _Stacked(stacks, choose, *sizes, backend)
    if by_layer:
        parts = Parts(net.split_layers, net.join_layers, net.used, net.bypassed_layers)
    else:
        parts = Parts(net.split, net.join, net.used, net.bypassed)
    return Network(net.init, net.init_stats, net.apply, net.apply_eval, parts)


class _Stacked(NamedTuple):
    stacks: tuple[Stack, ...]
    choose: Any
    stem: int
    stem_stride: int
    head: int
    act: str
    channels: int
    classes: int
    decisions: int
    backend: Backend

    def init(self, key: Array, arch: Array) -> Params:
        choices = self.choose(arch)
        last = self.stacks[-1].cout
        used = choices[-1].setting.cout
        params: Params = {
            "stem": ops.he_normal((3, 3, self.channels, self.stem), 9 * self.channels),
            "stem_norm": ops.norm_params(self.stem),
            "stacks": [
                _layers(parameters.init_layers, s, c)
                for s, c in zip(self.stacks, choices, strict=True)
            ],
            "bias": jnp.zeros(self.classes),
        }
        if self.head:
            params["head"] = ops.he_normal((last, self.head), used)
            params["head_norm"] = ops.norm_params(self.head)
            last = used = self.head
        # Half of He's variance: no rectifier follows the classifier.
        params["classifier"] = ops.he_normal((last, self.classes), 2 * used)
        return ops.realise(key, params)

    def init_stats(self) -> Stats:
        any_arch = jnp.zeros(self.decisions, jnp.int32)
        shapes = jax.eval_shape(self.init, jax.random.key(0), any_arch)["stacks"]
        stats: Stats = {
            "stem": ops.zero_moments(ops.norm_params(self.stem)),
            "stacks": [
                {part: reference.zero_stats(layer) for part, layer in stack.items()}
                for stack in shapes
            ],
        }
        if self.head:
            stats["head"] = ops.zero_moments(ops.norm_params(self.head))
        return stats

    def used(self, arch: Array) -> Params:
        choices = self.choose(arch)
        last = choices[-1].setting.cout
        shapes = jax.eval_shape(self.init, jax.random.key(0), arch)
        used = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, bool), shapes)
        used["stacks"] = [
            _layers(parameters.used_layers, s, c) for s, c in zip(self.stacks, choices, strict=True)
        ]
        reader = "head" if self.head else "classifier"
        used[reader] &= (jnp.arange(self.stacks[-1].cout) < last)[:, None]
        return used

    def split(self, params: Params) -> tuple[list[Params], Params]:
        return params["stacks"], {name: p for name, p in params.items() if name != "stacks"}

    def join(self, blocks: list[Params], shared: Params) -> Params:
        return shared | {"stacks": blocks}

    def bypassed(self, arch: Array) -> list[Array]:
        return [choice.rest_skip != SKIP_NONE for choice in self.choose(arch)]

    def split_layers(self, params: Params) -> tuple[list[Params], Params]:
        stacks, shared = self.split(params)
        layers: list[Params] = []
        for params_of, stack in zip(stacks, self.stacks, strict=True):
            rest = [
                jax.tree.map(lambda p, i=i: p[i], params_of["rest"]) for i in range(stack.depth - 1)
            ]
            layers += [{"first": layer} for layer in (params_of["first"], *rest)]
        return layers, shared

    def join_layers(self, blocks: list[Params], shared: Params) -> Params:
        layers, stacks = iter(block["first"] for block in blocks), []
        for stack in self.stacks:
            stacks.append({"first": next(layers)})
            if stack.depth > 1:
                rest = [next(layers) for _ in range(stack.depth - 1)]
                stacks[-1]["rest"] = jax.tree.map(lambda *p: jnp.stack(p), *rest)
        return self.join(stacks, shared)

    def bypassed_layers(self, arch: Array) -> list[Array]:
        return [jnp.zeros(0, bool)] * sum(stack.depth for stack in self.stacks)

    def apply(self, params: Params, arch: Array, images: Array) -> Array:
        x, _ = self._enter(params, images, None)
        choices = self.choose(arch)
        for p, stack, choice in zip(params["stacks"], self.stacks, choices, strict=True):
            x = _train_stack(self.backend, p, stack, choice, x)
        return self._leave(params, x, choices[-1].setting.cout, None)[0]

    def apply_eval(
        self, params: Params, stats: Stats, arch: Array, images: Array, collect: Array
    ) -> tuple[Array, Stats]:
        new: Stats = {"stacks": []}
        x, new["stem"] = self._enter(params, images, ops.Running(stats["stem"], collect))
        choices = self.choose(arch)
        for p, s, stack, choice in zip(
            params["stacks"], stats["stacks"], self.stacks, choices, strict=True
        ):
            x, stack_stats = _evaluate_stack(self.backend, p, s, stack, choice, x, collect)
            new["stacks"].append(stack_stats)
        running = ops.Running(stats["head"], collect) if self.head else None
        logits, moments = self._leave(params, x, choices[-1].setting.cout, running)
        if self.head:
            new["head"] = moments
        return logits, new

    def _enter(
        self, params: Params, images: Array, running: ops.Running | None
    ) -> tuple[Array, ops.Moments | None]:
        p = {"conv": params["stem"], "norm_out": params["stem_norm"]}
        shape = (3, self.stem_stride, self.channels, self.stem)
        return self._conv(p, images, *shape, running, root=True)

    def _leave(
        self, params: Params, x: Array, width: Array, running: ops.Running | None
    ) -> tuple[Array, ops.Moments | None]:
        moments = None
        if self.head:
            p = {"conv": params["head"][None, None], "norm_out": params["head_norm"]}
            x, moments = self._conv(p, x, 1, 1, width, self.head, running)
        return x.mean((1, 2), jnp.float32) @ params["classifier"] + params["bias"], moments

    def _conv(
        self,
        p: Params,
        x: Array,
        kernel: int,
        stride: int,
        cin: Array | int,
        cout: int,
        running: ops.Running | None,
        root: bool = False,
    ) -> tuple[Array, ops.Moments | None]:
        """Convolution, normalisation and activation: (result, the batch's moments)."""
        variants = (Variant("conv", (kernel,), 1, stride, self.act),)
        sizes = (jnp.int32(0), jnp.int32(cin), jnp.int32(cout))
        setting = Setting(*sizes, jnp.bool_(False), jnp.int32(SKIP_NONE))
        if running is None:
            return self.backend.apply(variants, p, x, 0, setting, root), None
        evaluation = Evaluation({"norm_out": running.moments}, running.collect)
        x, stats = self.backend.apply_eval(variants, p, x, 0, setting, evaluation)
        return x, stats["norm_out"]


def _layers(function: Callable[..., Params], stack: Stack, choice: Choice) -> Params:
    """`function`, one of `children.tensors`, of the layers of a stack."""
    se, setting = stack.se, choice.setting
    params = {
        "first": function((), stack.cin, stack.cout, setting, stack.first, choice.variant, se)
    }
    if stack.depth > 1:
        shape, setting = (stack.depth - 1,), _rest(choice)
        params["rest"] = function(
            shape, stack.cout, stack.cout, setting, stack.rest, choice.rest, se
        )
    return params


def _rest(choice: Choice) -> Setting:
    """The setting of the layers behind the first: input as wide as output."""
    return choice.setting._replace(cin=choice.setting.cout)


def _train_stack(backend: Backend, params: Params, stack: Stack, choice: Choice, x: Array) -> Array:
    x = backend.apply(stack.first, params["first"], x, choice.variant, choice.setting, False)

    def step(x: Array, layer: tuple[Params, Array, Array]) -> tuple[Array, None]:
        p, index, skip = layer
        setting = _rest(choice)._replace(skip=skip)
        return backend.apply(stack.rest, p, x, index, setting, False), None

    if stack.depth == 1:
        return x
    return _scan(backend, step, x, (params["rest"], choice.rest, choice.rest_skip))[0]


def _evaluate_stack(
    backend: Backend,
    params: Params,
    stats: Stats,
    stack: Stack,
    choice: Choice,
    x: Array,
    collect: Array,
) -> tuple[Array, Stats]:
    evaluation = Evaluation(stats["first"], collect)
    variant, setting = choice.variant, choice.setting
    x, first = backend.apply_eval(stack.first, params["first"], x, variant, setting, evaluation)

    def step(x: Array, layer: tuple[Params, Stats, Array, Array]) -> tuple[Array, Stats]:
        p, s, index, skip = layer
        setting = _rest(choice)._replace(skip=skip)
        return backend.apply_eval(stack.rest, p, x, index, setting, Evaluation(s, collect))

    if stack.depth == 1:
        return x, {"first": first}
    layers = (params["rest"], stats["rest"], choice.rest, choice.rest_skip)
    x, rest = _scan(backend, step, x, layers)
    return x, {"first": first, "rest": rest}


def _scan(backend: Backend, step: Callable[..., Any], x: Array, layers: Any) -> tuple[Array, Any]:
    """`lax.scan`, or the same written out where a layer is nothing but a call.

    A loop would copy what each layer keeps for its derivative.
    """
    if backend.looped:
        return lax.scan(step, x, layers)
    leaves, structure = jax.tree.flatten(layers)
    # The derivative of a split is one concatenation; of indices, a sum of arrays full of zeros.
    split = [lax.split(leaf, (1,) * leaf.shape[0]) for leaf in leaves]
    results = []
    for of_layer in zip(*split, strict=True):
        x, result = step(x, jax.tree.unflatten(structure, [leaf[0] for leaf in of_layer]))
        results.append(result)
    return x, jax.tree.map(lambda *r: jnp.stack(r), *results)

"""Layers of the user's own: Flax modules, each an operation beside those of `layers.spec`.

A class MODULE:CLASS makes the module `cls(features=Cout, stride=s, **options)`, which is called as
`module(x, train)`: [B, H, W, Cin] -> [B, ceil(H / s), ceil(W / s), Cout]. It may have parameters
and batch normalisations, whose moments it records where `train` says so, and nothing else: no
random numbers, no other variables. A layer is registered for one stride and pair of widths, and
gets a code, `LayerSpec.op`. Codes hold for this process; on disk, layers are known by `Layer`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import attributes, identity
from fnas_jax.core.types import Array, UserError
from fnas_jax.layers import ops, programs
from fnas_jax.layers.ops import Moments, Params
from fnas_jax.layers.spec import NONE, OWN, LayerSpec, Slot
from fnas_jax.spaces import layered

PREFIX = "own_"  # of the names of their parameters
_SIDE = 8  # of the images by which a layer is tried
_STATS = {"mean", "var"}


class Layer(NamedTuple):
    """All that a layer of the user's own is."""

    module: str  # MODULE:CLASS
    options: tuple[tuple[str, Any], ...]  # further arguments of the class, by name
    text: str  # digest of the class's text
    stride: int
    cin: int
    cout: int

    @property
    def name(self) -> str:
        """Of its parameters and statistics, the same in every process."""
        return PREFIX + identity.digest(identity.text(self))


_LAYERS: dict[str, Layer] = {}  # by name; codes count them
# Of the same names. A layer keeps the class that it was registered with, also where a notebook has
# loaded another text of it since.
_CLASSES: dict[str, type[nn.Module]] = {}


def register(layer: Layer) -> int:
    """The code of `layer`, which `LayerSpec.op` may have from now on.

    Raises UserError where the class cannot be imported, is not the one whose text was described, or
    makes no layer of these widths.
    """
    if layer.name not in _LAYERS:
        _CLASSES[layer.name] = cls = load(layer.module)
        if attributes.text_of(cls) != layer.text:
            raise UserError(
                f"the layer {layer.module} has changed: its text is not the one that the space,"
                " or the network, was made with"
            )
        _check(layer)
        _LAYERS[layer.name] = layer
    return OWN + list(_LAYERS).index(layer.name)


def of(code: int) -> Layer:
    """The layer of a code."""
    return list(_LAYERS.values())[code - OWN]


def name(code: int) -> str:
    """Of its parameters and statistics."""
    return of(code).name


def codes(slot: Slot) -> list[int]:
    """Those that may occur in the slot."""
    return sorted(op for op in slot.ops if op >= OWN)


def row(code: int, skip: int) -> LayerSpec:
    """The record of a layer; what only other operations have is not there."""
    layer = of(code)
    return LayerSpec(code, 1, layer.cin, 0, layer.cout, 0, skip, NONE)


def class_of(record: dict[str, Any]) -> type[nn.Module]:
    """The class that makes the layer of a record of `networks.readable`. Raises as `register`."""
    options = tuple(sorted(record["options"].items()))
    sizes = record["stride"], record["in"], record["out"]
    layer = Layer(record["module"], options, record["text"], *sizes)
    register(layer)
    return _CLASSES[layer.name]


def load(module: str) -> type[nn.Module]:
    """The class. Raises UserError where there is none."""
    found = layered.find_class(module)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise UserError(f"{module} is no class of flax.linen.Module, so it makes no layer")
    return found


def module(code: int, name: str | None = None) -> nn.Module:
    """The Flax module, inside another one by this name."""
    layer = of(code)
    more: dict[str, Any] = {} if name is None else {"name": name}
    return _module(layer, **more)


def _module(layer: Layer, **more: Any) -> nn.Module:
    cls: Any = _CLASSES[layer.name]
    return cls(features=layer.cout, stride=layer.stride, **dict(layer.options), **more)


# ---- parameters and statistics


@functools.cache
def _variables(layer: Layer, side: int = _SIDE) -> Any:
    """Shapes of the variables, as a dict of collections."""
    x = jax.ShapeDtypeStruct((1, side, side, layer.cin), jnp.float32)
    made = _module(layer)
    return jax.eval_shape(lambda x: made.init(jax.random.key(0), x, False), x)


def initial(code: int, shape: tuple[int, ...]) -> ops.Drawn:
    """Parameters of layers stacked along `shape`, by the module's own initialisers."""
    layer = of(code)

    def draw(key: Array) -> Params:
        x = jnp.zeros((1, _SIDE, _SIDE, layer.cin))
        return _module(layer).init(key, x, False).get("params", {})

    def stacked(key: Array) -> Params:
        keys = jax.random.split(key, math.prod(shape))
        drawn = jax.vmap(draw)(keys)
        return jax.tree.map(lambda leaf: leaf.reshape(*shape, *leaf.shape[1:]), drawn)

    return ops.Drawn(stacked)


def used(code: int, present: Array) -> Params:
    """Booleans like the parameters: a layer that is `present` [..] uses all of them."""
    shapes = _variables(of(code)).get("params", {})
    return jax.tree.map(
        lambda leaf: jnp.broadcast_to(
            present.reshape(present.shape + (1,) * leaf.ndim), (*present.shape, *leaf.shape)
        ),
        shapes,
    )


def zero_stats(name: str, shape: tuple[int, ...]) -> Any:
    """Zero moments of layers stacked along `shape`."""
    stats = _variables(_LAYERS[name]).get("batch_stats", {})
    return _to_moments(jax.tree.map(lambda leaf: jnp.zeros((*shape, *leaf.shape)), stats))


def _to_moments(tree: Any) -> Any:
    if set(tree) == _STATS:
        return Moments(tree["mean"], tree["var"])
    return {name: _to_moments(branch) for name, branch in tree.items()}


@functools.cache
def _momenta(layer: Layer) -> Any:
    """Like the statistics in Flax's form, numpy: m of `new = m * old + (1 - m) * the batch's`.

    They are what the derivative of the new ones in the old ones says.
    """
    made, shapes = _module(layer), _variables(layer)
    if "batch_stats" not in shapes:
        return {}

    def of(variables: Any, x: Array) -> Any:
        def new(old: Any) -> Any:
            found = _run(made, variables | {"batch_stats": old}, x)[1]
            return found.get("batch_stats", {})

        old = variables.get("batch_stats", {})
        return jax.jvp(new, (old,), (jax.tree.map(jnp.ones_like, old),))[1]

    x = jax.ShapeDtypeStruct((1, _SIDE, _SIDE, layer.cin), jnp.float32)
    # Compiled, because XLA leaves out all else; so it also runs where a layer is registered, or
    # this is first called, while something is traced.
    program = jax.jit(of).lower(shapes, x).compile()
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (shapes, x))
    return jax.tree.map(np.asarray, program(*zeros))


def from_moments(tree: Any) -> Any:
    """Statistics as Flax has them."""
    if isinstance(tree, Moments):
        return {"mean": tree.mean, "var": tree.var}
    return {name: from_moments(branch) for name, branch in tree.items()}


# ---- forward


def apply(
    code: int, params: Params, x: Array, stats: Any, collect: Array | bool
) -> tuple[Array, Any]:
    """The layer without its skip, and its moments.

    x [B, H, W, Cin] -> [B, H/s, W/s, Cout] of x's type. `params` and `stats` are those of this
    layer alone. Without `stats`: training, by the batch, and zeros for moments; else as
    `choose.Backend.apply_eval`.
    """
    layer, made = of(code), module(code)
    if stats is None:
        zeros = zero_stats(layer.name, ())
        y, _ = _run(made, {"params": params, "batch_stats": from_moments(zeros)}, x)
        return y.astype(x.dtype), zeros

    def by_batch() -> tuple[Array, Any]:
        zeros = jax.tree.map(jnp.zeros_like, from_moments(stats))
        y, new = _run(made, {"params": params, "batch_stats": zeros}, x)
        found = jax.tree.map(lambda n, m: n / (1 - m), new.get("batch_stats", {}), _momenta(layer))
        return y.astype(x.dtype), _to_moments(found)

    def by_stats() -> tuple[Array, Any]:
        variables = {"params": params, "batch_stats": from_moments(stats)}
        return jnp.asarray(made.apply(variables, x, False)).astype(x.dtype), stats

    return jax.lax.cond(collect, by_batch, by_stats)


# ---- cost


@functools.cache
def cost(code: int, height: int, width: int) -> tuple[int, int]:
    """Parameters, and multiply-adds of one image [height, width]: convolutions and products.

    See `programs.multiply_adds`.
    """
    layer = of(code)
    made, variables = module(code), _variables(layer)
    x = jax.ShapeDtypeStruct((1, height, width, layer.cin), jnp.float32)
    program = jax.make_jaxpr(lambda v, x: made.apply(v, x, False))(variables, x)
    params = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables.get("params", {})))
    return params, programs.multiply_adds(program.jaxpr)


# ---- what may be a layer


def _check(layer: Layer) -> None:
    """Raises UserError where the class makes no layer of these widths."""
    what = (
        f"the layer {layer.module} for {layer.cin} to {layer.cout} channels at stride"
        f" {layer.stride}"
    )
    found = _tried(what, lambda: _variables(layer))
    others = set(found) - {"params", "batch_stats"}
    if others:
        raise UserError(
            f"{what} has variables {sorted(others)}; allowed are params and batch_stats"
        )
    if found != _tried(what, lambda: _variables(layer, 2 * _SIDE)):
        raise UserError(f"{what} has variables whose shapes depend on the image's size")
    if not _normal(found.get("batch_stats", {})):
        raise UserError(f"{what} has other batch_stats than means and variances")
    x = jax.ShapeDtypeStruct((2, _SIDE, _SIDE - 1, layer.cin), jnp.float32)
    y, _ = _tried(what, lambda: jax.eval_shape(functools.partial(_run, _module(layer)), found, x))
    _tried(what, lambda: jax.eval_shape(lambda v, x: _module(layer).apply(v, x, False), found, x))
    if any((m >= 1).any() for m in jax.tree.leaves(_tried(what, lambda: _momenta(layer)))):
        raise UserError(
            f"{what} has statistics that no batch changes: a normalisation needs"
            " use_running_average=not train, and a momentum below 1"
        )
    height, width = (-(-side // layer.stride) for side in x.shape[1:3])
    needed, made = (2, height, width, layer.cout), getattr(y, "shape", type(y).__name__)
    if made != needed:
        raise UserError(f"{what} makes {made} of {x.shape}; {needed} is needed")


def _run(made: nn.Module, variables: Any, x: Array) -> Any:
    return made.apply(variables, x, True, mutable=["batch_stats"])


def _tried(what: str, function: Callable[[], Any]) -> Any:
    """What `function` returns. Raises UserError, about `what`, where it raises."""
    try:
        return function()
    except UserError:
        raise
    except Exception as error:  # whatever the user's class raises
        # Flax explains over many lines; the first one says what it is.
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{what} cannot be made: {type(error).__name__}: {reason}") from error


def _normal(tree: Any) -> bool:
    """Whether there are means and variances at all ends of the tree."""
    if not hasattr(tree, "items"):
        return False
    return set(tree) == _STATS or all(_normal(branch) for branch in tree.values())

"""The sizes that a slot's layers are compiled in: few, and little wasted.

A layer is computed by the code of the smallest case that holds it, with zeros beyond its own sizes.
Each case is a branch to compile. So we begin with one for every layer that may occur, and join the
two that waste least, again and again, as long as at most `WASTE` of what all layers together need
is wasted: of their multiply-adds, and of the numbers that they move, which is what takes the time
of narrow layers on an accelerator.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.layers.spec import CONV, MBCONV, NO_SKIP, OWN, PASS, LayerSpec, Slot

WASTE = 0.15  # share of the work of a slot's layers, each as often as the others


class _Group(NamedTuple):
    """Layers that share a case."""

    case: LayerSpec
    layers: int
    needs: np.ndarray  # [2] work of these layers by code of their own
    wastes: np.ndarray  # [2] work that they do for nothing


@functools.cache
def of(slot: Slot) -> tuple[LayerSpec, ...]:
    """The cases of the slot, the cheapest first; fields are upper bounds but for `op` and `act`."""
    groups = [_Group(layer, 1, _work(slot.stride, layer), np.zeros(2)) for layer in _exact(slot)]
    allowed = WASTE * sum(group.needs for group in groups)
    # Of each two groups, by their cases: the two, as one, and what that adds to the waste.
    pairs = {(a.case, b.case): _pair(slot, a, b) for a, b in itertools.combinations(groups, 2)}
    wasted = np.zeros(2)
    while pairs := {key: pair for key, pair in pairs.items() if pair is not None}:
        first, second, joined, more = min(pairs.values(), key=lambda p: (p[3] / allowed).max())
        wasted = wasted + more
        if (wasted > allowed).any():
            break
        old = {first.case, second.case}
        groups = [group for group in groups if group.case not in old]
        pairs = {key: pair for key, pair in pairs.items() if not old & set(key)}
        pairs |= {(group.case, joined.case): _pair(slot, group, joined) for group in groups}
        groups.append(joined)
    cases = [group.case for group in groups]
    return tuple(sorted(cases, key=lambda case: (*_work(slot.stride, case), case)))


def _pair(slot: Slot, a: _Group, b: _Group) -> tuple[_Group, _Group, _Group, np.ndarray] | None:
    """(the two, as one, what that adds to the waste); None where they are of different kinds."""
    if a.case.op != b.case.op or a.case.act != b.case.act or a.case.op >= OWN:
        return None
    case = LayerSpec(*map(max, a.case, b.case))
    layers, needs = a.layers + b.layers, a.needs + b.needs
    wastes = layers * _work(slot.stride, case) - needs
    return a, b, _Group(case, layers, needs, wastes), wastes - a.wastes - b.wastes


def index_of(slot: Slot, spec: LayerSpec) -> Array:
    """[] int32: the first of the cases, hence the cheapest, that holds `spec`."""
    found = jnp.stack([jnp.asarray(_holds(case, spec)) for case in of(slot)])
    return jnp.argmax(found).astype(jnp.int32)


def holding(slot: Slot, spec: LayerSpec) -> LayerSpec:
    """The case of `index_of`, for a record of Python ints."""
    return next(case for case in of(slot) if _holds(case, spec))


def _holds(case: LayerSpec, spec: LayerSpec) -> Any:
    """Whether the code of a case computes the layer `spec`."""
    fits = (spec.op == case.op) & (spec.act == case.act)
    for name in ("kernel", "cin", "middle", "cout") if case.op in range(PASS + 1, OWN) else ():
        fits = fits & (getattr(spec, name) <= getattr(case, name))
    return fits


def _exact(slot: Slot) -> list[LayerSpec]:
    """Every layer that may occur, once; of squeeze-excitation and skips the most there may be."""
    found: dict[LayerSpec, LayerSpec] = {}
    for choice in slot.choices:
        scaled = choice.op in range(PASS + 1, OWN)
        for cin, cout in (slot.widths if scaled else ()) or ((choice.cin, choice.cout),):
            layer = choice._replace(
                cin=cin, cout=cout, middle=choice.middle // choice.cin * cin, skip=NO_SKIP
            )
            key = layer._replace(se_hidden=0)
            most = max(layer.se_hidden, found[key].se_hidden if key in found else 0)
            found[key] = layer._replace(se_hidden=most)
    return list(found.values())


def _work(stride: int, v: LayerSpec) -> np.ndarray:
    """Multiply-adds and numbers moved of a pixel of the output."""
    if not PASS < v.op < OWN:
        return np.zeros(2)
    pixels = stride**2  # of the input
    if v.op == CONV:
        return np.asarray([v.kernel**2 * v.cin * v.cout, pixels * v.cin + v.cout], float)
    expanded = (v.op == MBCONV) * pixels * v.middle
    macs = v.cin * expanded + (v.kernel**2 + v.cout) * v.middle
    return np.asarray([macs, pixels * v.cin + expanded + v.middle + v.cout], float)

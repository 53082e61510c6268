"""All operations of a space, and the latencies of batches of its networks by a table of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.networks import mobile_spaces
from fnas_jax.spaces import cell, cells
from fnas_jax.spaces.base import Space
from fnas_jax.timing import units as units_lib
from fnas_jax.timing.units import Part, Place, Unit

SAMPLE = 32768  # random networks that are looked through for operations
_CHANNELS = 1 << 13  # of any operation; more do not fit into the numbers below
_NONE = -1  # no operation


class Columns(NamedTuple):
    """For one part of the layers: which operations each of L layers may have there."""

    codes: np.ndarray  # [L, M] int32, of `coded`; -1 where a layer has fewer than M
    ms: np.ndarray  # [L, M] float32


def of_space(space: Space, image_shape: tuple[int, int, int], classes: int) -> list[Unit]:
    """The operations that networks of the space consist of, each once.

    Those of layers are the ones that 32,768 random networks have: one of them misses an operation
    of a choice among a thousand with a probability of exp(-32). Raises ValueError for a space
    without networks or with more than 8,191 channels.
    """
    spec, found = space.spec, []
    if isinstance(spec, cells.SPECS):
        for arch in (*(cells.everywhere(spec, op) for op in cell.OPS), _most_sums(space)):
            found += units_lib.of_network(space, arch, image_shape, classes)
        return list(dict.fromkeys(found))
    stem = units_lib.stem_of(_mobile(space), image_shape)
    seen = _seen(space, image_shape)
    for part in seen.parts:
        for place, codes in zip(seen.places, part.codes, strict=True):
            found += [_unit(part, place, code) for code in codes.tolist()]
    for features in seen.features.tolist():
        found += units_lib.ends_of(spec, seen.places[-1].after, features, classes)
    return list(dict.fromkeys([stem, *found]))


def predictor(
    space: Space,
    image_shape: tuple[int, int, int],
    classes: int,
    fixed_ms: float,
    units_ms: Mapping[str, float],
) -> Callable[[Array], Array]:
    """A pure, jittable function archs [N, T] -> milliseconds [N] float32.

    `units_ms` is by the keys of operations. NaN for a network with one that `of_space` does not
    know. Raises UserError for a table without one that it knows, ValueError as `of_space` does.
    """

    def ms(unit: Unit) -> float:
        if unit.key not in units_ms:
            raise UserError(f"the table of latencies has no row {unit.key!r}, which networks need")
        return units_ms[unit.key]

    spec = space.spec
    if isinstance(spec, cells.SPECS):
        one = functools.partial(
            _cells, spec, *_cell_tables(space, image_shape, classes, fixed_ms, ms)
        )
    else:
        stem = units_lib.stem_of(_mobile(space), image_shape)
        seen = _seen(space, image_shape)
        columns = [_columns(part, seen.places, ms) for part in seen.parts]
        ends = [
            sum(map(ms, units_lib.ends_of(spec, seen.places[-1].after, features, classes)))
            for features in seen.features.tolist()
        ]
        last = Columns(seen.features[None], np.asarray([ends], np.float32))
        one = functools.partial(_layers, spec, columns, last, fixed_ms + ms(stem))

    def of(archs: Array) -> Array:
        chex.assert_shape(archs, (None, len(space.cardinalities)))
        return jax.vmap(one)(jnp.asarray(archs))

    return jax.jit(of)


# ---- stacks of layers


class SeenPart(NamedTuple):
    """One part of the layers, and its operations that were seen."""

    kind: str
    where: int
    codes: list[np.ndarray]  # of each layer [m] int32


class Seen(NamedTuple):
    """What occurs in networks of stacked layers."""

    places: list[Place]  # of each slot
    parts: list[SeenPart]
    features: np.ndarray  # [F] int32 output channels of the last layer


def _mobile(space: Space) -> Any:
    if type(space.spec) not in mobile_spaces.MODULES:
        raise ValueError(f"the space {space.name!r} has no networks")
    units_lib.refuse_own(space)
    return space.spec


def _seen(space: Space, image_shape: tuple[int, int, int]) -> Seen:
    spec = space.spec
    archs = jax.jit(space.sample, static_argnums=1)(jax.random.key(0), SAMPLE)
    layers = jax.device_get(jax.jit(jax.vmap(functools.partial(mobile_spaces.layers, spec)))(archs))
    if max(int(field.max()) for field in (layers.cin, layers.middle, layers.cout)) >= _CHANNELS:
        raise UserError(f"latencies are known of layers with fewer than {_CHANNELS} channels only")
    parts = []
    for part in units_lib.parts_of(layers):
        codes = np.asarray(coded(part))
        of_layers = [np.unique(column[column != _NONE]) for column in codes.T]
        parts.append(SeenPart(part.kind, part.where, of_layers))
    return Seen(_places(spec, image_shape), parts, np.unique(layers.cout[:, -1]))


def _places(spec: Any, image_shape: tuple[int, int, int]) -> list[Place]:
    """Where each slot stands: a layer that is not there has stride 1."""
    size = tuple(units_lib.half(side, spec.stem_stride) for side in image_shape[:2])
    places = []
    for stack in mobile_spaces.slots(spec):
        for slot in stack:
            places.append(Place(slot.stride, *size))
            size = places[-1].after
    return places


def coded(part: Part) -> Any:
    """[..] int32 numbers of operations, different for different ones; -1 where there is none."""
    kind = part.act * 8 + part.kernel
    code = (kind * _CHANNELS + part.cin) * _CHANNELS + part.cout
    xp = jnp if isinstance(code, jax.Array) else np
    return xp.where(part.present, code, _NONE)


def _unit(part: SeenPart, place: Place, code: int) -> Unit:
    """The operation with this number of `coded`."""
    rest, cout = divmod(code, _CHANNELS)
    kind, cin = divmod(rest, _CHANNELS)
    act, kernel = divmod(kind, 8)
    return units_lib.unit_of(Part(part.kind, part.where, True, cin, cout, kernel, act), place)


def _columns(part: SeenPart, places: list[Place], ms: Callable[[Unit], float]) -> Columns:
    most = max(map(len, part.codes))
    codes = np.full((len(places), most), _NONE, np.int32)
    times = np.zeros((len(places), most), np.float32)
    for i, (place, seen) in enumerate(zip(places, part.codes, strict=True)):
        codes[i, : len(seen)] = seen
        times[i, : len(seen)] = [ms(_unit(part, place, code)) for code in seen.tolist()]
    return Columns(codes, times)


def _layers(spec: Any, columns: list[Columns], last: Columns, fixed: float, arch: Array) -> Array:
    """Milliseconds [] of `arch` [T]."""
    layers = mobile_spaces.layers(spec, arch)
    parts = units_lib.parts_of(layers)
    times = [_found(own, coded(part)) for own, part in zip(columns, parts, strict=True)]
    total = jnp.sum(jnp.stack(times)) + _found(last, layers.cout[-1:])[0]
    return (total + fixed).astype(jnp.float32)


def _found(columns: Columns, codes: Array) -> Array:
    """[L] milliseconds of the operations with these numbers [L]; 0 where there is none."""
    same = (columns.codes == codes[:, None]) & (codes[:, None] != _NONE)
    known = same.any(axis=1) | (codes == _NONE)
    return jnp.where(known, jnp.where(same, columns.ms, 0.0).sum(axis=1), jnp.nan)


# ---- cells


def _cell_tables(
    space: Space,
    image_shape: tuple[int, int, int],
    classes: int,
    fixed_ms: float,
    ms: Callable[[Unit], float],
) -> tuple[float, np.ndarray, float]:
    """Milliseconds of all but the cells, of each operation in all cells [4], of a sum in these."""
    edges, spec = len(cells.edges_of(space.spec)), space.spec

    def of(op: str) -> float:
        arch = cells.everywhere(spec, op)
        return sum(map(ms, units_lib.of_network(space, arch, image_shape, classes)))

    none, *others = cell.OPS
    most = _most_sums(space)
    units = units_lib.of_network(space, most, image_shape, classes)
    sums = cells.added(spec, cells.switches(spec, most))
    a_sum = sum(ms(unit) for unit in units if unit.kind == "add") / float(sums)
    nothing, each = of(none), []
    for op in others:
        sums = cells.added(spec, cells.switches(spec, cells.everywhere(spec, op)))
        each.append((of(op) - nothing - float(sums) * a_sum) / edges)
    return fixed_ms + nothing, np.asarray(each, np.float32), a_sum


def _most_sums(space: Space) -> np.ndarray:
    """[T] int32: a cell that has sums."""
    mixed = isinstance(space.spec, cells.MIXED)
    return space.largest if mixed else cells.everywhere(space.spec, "skip_connect")


def _cells(spec: Any, fixed: float, each: np.ndarray, a_sum: float, arch: Array) -> Array:
    """Milliseconds [] of `arch` [T]."""
    on = cells.switches(spec, arch)
    total = fixed + (on * jnp.asarray(each)).sum() + a_sum * cells.added(spec, on)
    return total.astype(jnp.float32)

"""How many multiply-adds a program executes on an accelerator, for the numbers that it is given.

XLA's own analysis counts a loop once and a conditional in a way of its own. Here the program's
jaxpr is walked with the numbers that decide what runs (architectures): of a `cond` the branch that
is taken counts, and loops count as often as they run. Everything else has shapes only, so that also
full-size networks are counted in seconds. What XLA leaves out, because nobody reads it, does not
count.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core

from fnas_jax.layers.taps import TAPS

_LARGEST = 2**14  # elements of an array whose numbers are followed
_BY_NUMPY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "not": np.invert,
}
Value = Any  # a concrete array, or None: not known


def multiply_adds(function: Callable[..., Any], *given: Any) -> int:
    """Of the convolutions and matrix products that `function(*given)` executes on an accelerator.

    Leaves of `given` are arrays, whose numbers are followed where they are small integers or
    booleans, or `jax.ShapeDtypeStruct`. Positions of kernels on padding count, as in
    `networks.cost`; zeros that a convolution inserts between pixels do not. Depthwise convolutions
    that are written as shifted products count, too (`taps.TAPS`). Raises ValueError where
    what is executed depends on numbers that are not given.
    """
    leaves, structure = jax.tree.flatten(given)
    closed = jax.make_jaxpr(lambda *leaves: function(*jax.tree.unflatten(structure, leaves)))(
        *leaves
    )
    values = [
        None if isinstance(leaf, jax.ShapeDtypeStruct) else _followed(leaf) for leaf in leaves
    ]
    return _walk(closed, values)[0]


def _followed(value: Any) -> Value:
    """`value` where its numbers may decide what runs."""
    if not isinstance(getattr(value, "dtype", None), np.dtype):
        return None
    return value if value.dtype.kind in "iub" and value.size <= _LARGEST else None


def _walk(
    program: core.ClosedJaxpr,
    given: Sequence[Value],
    asked: Sequence[bool] | None = None,
    read: Sequence[bool] | None = None,
) -> tuple[int, list[Value]]:
    """(multiply-adds, what is known of the outputs), for arguments in order.

    The numbers of outputs that are not `asked` for are not followed; what only those need that
    nobody will `read` is left out (None: all are read).
    """
    count = len(program.jaxpr.outvars)
    asked = (False,) * count if asked is None else tuple(asked)
    read = (True,) * count if read is None else tuple(read)
    if not any(asked) and not _decided(program.jaxpr):
        return _undecided(program, read), [None] * count
    return _followed_walk(program, given, asked, read)


@functools.cache
def _undecided(program: core.ClosedJaxpr, read: tuple[bool, ...]) -> int:
    """Multiply-adds of a program that executes the same whatever it is given."""
    given, asked = [None] * len(program.jaxpr.invars), (False,) * len(read)
    return _followed_walk(program, given, asked, read)[0]


def _followed_walk(
    program: core.ClosedJaxpr,
    given: Sequence[Value],
    asked: tuple[bool, ...],
    read: tuple[bool, ...],
) -> tuple[int, list[Value]]:
    """`_walk`, step by step."""
    jaxpr = program.jaxpr
    known: dict[Any, Value] = dict(zip(jaxpr.invars, given, strict=True))
    known |= zip(jaxpr.constvars, map(_followed, program.consts), strict=True)

    def value(atom: Any) -> Value:
        return np.asarray(atom.val) if isinstance(atom, core.Literal) else known.get(atom)

    total = 0
    for of_step in _plan(jaxpr, asked, read).steps:
        found, values = _step(of_step, [value(atom) for atom in of_step.step.invars])
        total += found
        known.update(zip(of_step.step.outvars, values, strict=True))
    return total, [value(atom) for atom in jaxpr.outvars]


class _Planned(NamedTuple):
    """A step whose results are read."""

    step: Any
    asked: tuple[bool, ...]  # which of its outputs decide: see `_Plan`
    read: tuple[bool, ...]  # which of its outputs somebody reads


class _Plan(NamedTuple):
    """What of a program is executed.

    A number decides if what is executed, or an output that is asked for, depends on it.
    """

    steps: list[_Planned]
    decides: list[bool]  # which arguments
    read: list[bool]  # which arguments


@functools.cache
def _plan(jaxpr: Any, asked: tuple[bool, ...], read: tuple[bool, ...]) -> _Plan:
    def variables(atoms: Any, flags: Any) -> set[Any]:
        pairs = zip(atoms, flags, strict=True)
        return {v for v, flag in pairs if flag and not isinstance(v, core.Literal)}

    needed, decides = variables(jaxpr.outvars, read), variables(jaxpr.outvars, asked)
    needed |= decides
    steps = []
    for step in reversed(jaxpr.eqns):
        if not any(v in needed for v in step.outvars):
            continue
        planned = _Planned(
            step,
            tuple(v in decides for v in step.outvars),
            tuple(v in needed for v in step.outvars),
        )
        steps.append(planned)
        of_arguments = _arguments(planned)
        decides |= variables(step.invars, of_arguments[0])
        needed |= variables(step.invars, of_arguments[1])
    of_all = ([v in those for v in jaxpr.invars] for those in (decides, needed))
    return _Plan(steps[::-1], *of_all)


def _arguments(planned: _Planned) -> tuple[list[bool], list[bool]]:
    """Which arguments of a step decide, and which are read."""
    step, asked, read = planned
    name, params, every = step.primitive.name, step.params, [True] * len(step.invars)
    inner, first = _called(step)
    if inner is not None:
        of_call = _plan(inner.jaxpr, asked, read)
        return [False] * first + of_call.decides, [False] * first + of_call.read
    if name == "while" or any(asked):
        return every, every
    if name == "scan":
        return [_decided(params["jaxpr"].jaxpr)] * len(every), every
    if name == "cond":
        everything = (True,) * len(asked)
        plans = [_plan(branch.jaxpr, asked, everything) for branch in params["branches"]]
        return [True, *map(any, zip(*(p.decides for p in plans), strict=True))], every
    return [False] * len(every), every


def _decided(jaxpr: Any) -> bool:
    """Whether what it executes may depend on numbers."""
    outputs = len(jaxpr.outvars)
    return any(_plan(jaxpr, (False,) * outputs, (True,) * outputs).decides)


def _step(planned: _Planned, given: list[Value]) -> tuple[int, list[Value]]:
    """One step: its multiply-adds and what is known of its outputs."""
    step, asked, read = planned
    name, params = step.primitive.name, step.params
    unknown: list[Value] = [None] * len(step.outvars)
    inner, first = _called(step)
    if inner is not None:
        return _walk(inner, given[first:], asked, read)
    if name == "cond":
        if given[0] is None:
            raise ValueError("the branch depends on numbers that are not given")
        taken = min(max(int(given[0]), 0), len(params["branches"]) - 1)
        return _walk(params["branches"][taken], given[1:], asked)
    if name == "scan":
        return _scan(step, given, asked)
    if name == "while":
        return _while(params, given)
    count = _own(step)
    if not any(asked) or any(v is None for v in given):
        return count, unknown
    if max(v.aval.size for v in step.outvars) > _LARGEST:
        return count, unknown
    values = _evaluated(step, given)
    return count, list(values) if step.primitive.multiple_results else [values]


def _evaluated(step: Any, given: list[Value]) -> Any:
    """The results of a small step, by numpy where that is easy: JAX would compile each."""
    name, params = step.primitive.name, step.params
    given = [np.asarray(value) for value in given]
    if name in _BY_NUMPY:
        found = _BY_NUMPY[name](*given)
    elif name in ("reshape", "squeeze"):
        found = given[0].reshape(step.outvars[0].aval.shape)
    elif name == "broadcast_in_dim":
        shape = [1] * len(params["shape"])
        for place, size in zip(params["broadcast_dimensions"], given[0].shape, strict=True):
            shape[place] = size
        found = np.broadcast_to(given[0].reshape(shape), params["shape"])
    elif name == "concatenate":
        found = np.concatenate(given, params["dimension"])
    elif name == "convert_element_type":
        found = given[0]
    elif name == "select_n" and len(given) == 3:
        found = np.where(given[0], given[2], given[1])
    else:
        return step.primitive.bind(*map(jax.numpy.asarray, given), **params)
    return found.astype(step.outvars[0].aval.dtype)


def _called(step: Any) -> tuple[Any, int]:
    """The program of a step that is nothing but a call (None of others), and its first argument."""
    params = step.params
    if step.primitive.name == "cond" and params.get("branches_platforms") is not None:
        # `lax.platform_dependent`, which XLA never sees: what is not for CPUs.
        platforms = params["branches_platforms"]
        chosen = (i for i, names in enumerate(platforms) if names is None or "cpu" not in names)
        return params["branches"][next(chosen)], 1
    if step.primitive.name in ("cond", "scan", "while"):
        return None, 0
    for key in ("jaxpr", "call_jaxpr", "call"):
        if key in params:
            found = params[key]
            return found if hasattr(found, "jaxpr") else core.ClosedJaxpr(found, ()), 0
    return None, 0


def _scan(step: Any, given: list[Value], asked: Sequence[bool]) -> Any:
    params = step.params
    body, length = params["jaxpr"], params["length"]
    # By shapes, because JAX's names of their numbers change: rows of inputs and outputs have an
    # axis more outside the loop than in it.
    carries = sum(
        v.aval.shape == a.shape for v, a in zip(step.outvars, body.out_avals, strict=True)
    )
    rows_in = sum(v.aval.shape != a.shape for v, a in zip(step.invars, body.in_avals, strict=True))
    consts = len(given) - carries - rows_in
    if not any(asked) and not _decided(body.jaxpr):
        return length * _walk(body, [None] * len(given))[0], [None] * len(asked)
    fixed, carry, rows = given[:consts], given[consts : consts + carries], given[consts + carries :]
    total, made = 0, []
    for i in range(length)[::-1] if params["reverse"] else range(length):
        of_step = [None if row is None else row[i] for row in rows]
        found, values = _walk(body, [*fixed, *carry, *of_step], [True] * len(asked))
        total, carry = total + found, values[:carries]
        made.append(values[carries:])
    made = made[::-1] if params["reverse"] else made
    return total, [*carry, *(_stacked(rows) for rows in zip(*made, strict=True))]


def _stacked(rows: Sequence[Value]) -> Value:
    return None if any(row is None for row in rows) else np.stack([np.asarray(r) for r in rows])


def _while(params: dict[str, Any], given: list[Value]) -> tuple[int, list[Value]]:
    test, body = params["cond_jaxpr"], params["body_jaxpr"]
    first, second = params["cond_nconsts"], params["body_nconsts"]
    of_test, of_body, carry = given[:first], given[first : first + second], given[first + second :]
    total = 0
    while True:
        _, (goes_on,) = _walk(test, [*of_test, *carry], [True])
        if goes_on is None:
            raise ValueError("how often a loop runs depends on numbers that are not given")
        if not goes_on:
            return total, carry
        found, carry = _walk(body, [*of_body, *carry], [True] * len(carry))
        total += found


def _own(step: Any) -> int:
    """Multiply-adds of a step that is no call, loop or conditional."""
    name, out = step.primitive.name, step.outvars[0].aval if step.outvars else None
    given = [v.aval for v in step.invars]
    if name == "dot_general":
        ((contracted, _), _) = step.params["dimension_numbers"]
        return math.prod(out.shape) * math.prod(given[0].shape[i] for i in contracted)
    if name == "conv_general_dilated":
        return _convolution(step.params, *given, out)
    # Of a shifted product every tap is one elementwise product.
    if name == "mul" and TAPS in str(step.source_info.name_stack):
        return math.prod(out.shape)
    return 0


def _convolution(params: dict[str, Any], image: Any, weights: Any, out: Any) -> int:
    numbers = params["dimension_numbers"]
    outside = [out.shape[i] for i in numbers.out_spec[:2]]  # batch and features
    total = math.prod(outside) * weights.shape[numbers.rhs_spec[1]]
    spatial = zip(numbers.out_spec[2:], numbers.rhs_spec[2:], itertools.count(), strict=False)
    for place, kernel, i in spatial:
        at = np.arange(out.shape[place])[:, None] * params["window_strides"][i]
        at = at + np.arange(weights.shape[kernel]) * params["rhs_dilation"][i]
        total *= int(((at - params["padding"][i][0]) % params["lhs_dilation"][i] == 0).sum())
    return total

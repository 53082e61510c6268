"""Trainable spaces of the user's own: stages of layers, each chosen among a few.

    space = layered.make(
        [
            layered.stage(16, {"k3": layered.conv(3), "k5": layered.conv(5)}),
            layered.stage(24, {"e3": layered.mbconv(3, 3), "e6": layered.mbconv(5, 6)}, depth=3,
                stride=2, optional=True),
        ],
        stem=8,
    )

The networks are a 3x3 stem, the stages, a 1x1 head and a linear classifier; each layer is a
decision.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fnas_jax.core import attributes, checks
from fnas_jax.core.types import Array, UserError
from fnas_jax.spaces import base, categorical

KERNELS = (3, 5, 7)
ACTS = ("relu", "relu6", "hard_swish", "none")
SKIPS = ("pool", "identity", "none")
OPS = ("conv", "sepconv", "mbconv", "own", "none")
ABSENT = "none"  # the choice of no layer
GIVEN = ("features", "stride", "name", "parent")  # what a layer's class is made with anyway


class Choice(NamedTuple):
    """A layer that a stage may have; see `layers.spec`."""

    op: str  # of OPS
    kernel: int = 1
    expansion: int = 0  # of an mbconv
    se: bool = False  # squeeze-excitation
    skip: str = "none"
    act: str = "none"
    module: str = ""  # of an own layer: MODULE:CLASS,
    options: tuple[tuple[str, Any], ...] = ()  # its arguments,
    text: str = ""  # and the digest of its class's text


class Stage(NamedTuple):
    """Layers of one width, the first of which has the stride."""

    width: int
    depth: int
    stride: int
    optional: bool  # layers behind the first may be absent
    names: tuple[str, ...]  # of the choices
    choices: tuple[Choice, ...]


class LayeredSpec(NamedTuple):
    """The space, and all that its networks depend on."""

    stem: int
    stem_stride: int
    head: int  # 0: no head
    stages: tuple[Stage, ...]


def conv(kernel: int, *, act: str = "relu", se: bool = False, skip: str = "none") -> Choice:
    """A convolution. `kernel` 3, 5 or 7; `act` and `skip` as `layers.spec` has them."""
    return _checked(Choice("conv", kernel, 0, se, skip, act))


def sepconv(kernel: int, *, act: str = "relu", se: bool = False, skip: str = "none") -> Choice:
    """A depthwise and a 1x1 convolution."""
    return _checked(Choice("sepconv", kernel, 0, se, skip, act))


def mbconv(
    kernel: int, expansion: int, *, act: str = "relu", se: bool = False, skip: str = "identity"
) -> Choice:
    """An inverted bottleneck; an identity counts where shapes agree."""
    found = Choice("mbconv", kernel, checks.whole("expansion", expansion), se, skip, act)
    return _checked(found)


def own(module: str | type, *, skip: str = "none", **options: Any) -> Choice:
    """A layer of the user's own (`layers.own`): a class of Flax modules, or MODULE:CLASS of it.

    `options` are further arguments of the class: finite numbers, texts, booleans or None. Raises
    UserError where the class cannot be imported by its name, or its file has changed since.
    """
    if isinstance(module, type):
        module = f"{module.__module__}:{module.__qualname__}"
    if not isinstance(module, str):
        raise UserError(f"own({module!r}) is no layer; a class, or its MODULE:CLASS, is needed")
    if module.startswith("__main__:"):
        raise UserError(
            f"the layer {module} can be imported by no other process; name it by the module of its"
            " file, MODULE:CLASS"
        )
    for name, value in options.items():
        if name in GIVEN:
            raise UserError(f"{name} of the layer {module} is no option: it is given by the space")
        number = isinstance(value, float) and not math.isfinite(value)
        if number or not isinstance(value, str | int | float | bool | None):
            raise UserError(
                f"{name} of the layer {module} is {value!r}; it must be a finite number, a text,"
                " True, False or None"
            )
    text = attributes.text_of(find_class(module))
    found = Choice("own", module=module, options=tuple(sorted(options.items())), text=text)
    return _checked(found._replace(skip=skip))


def find_class(module: str) -> type:
    """The class MODULE:CLASS. Raises UserError where there is none."""
    return attributes.find("a layer's module", module, *module.partition(":")[::2])


def _checked(choice: Choice) -> Choice:
    for name, value, allowed in (
        ("kernel", choice.kernel, KERNELS if choice.op != "own" else (1,)),
        ("act", choice.act, ACTS),
        ("skip", choice.skip, SKIPS),
    ):
        if value not in allowed:
            raise UserError(f"{name} is {value!r}; allowed are {', '.join(map(str, allowed))}")
    kernel = checks.whole("kernel", choice.kernel)  # 3.0 equals 3, too
    return choice._replace(kernel=kernel, se=checks.truth("se", choice.se))


def stage(
    width: int,
    choices: Mapping[str, Choice],
    *,
    depth: int = 1,
    stride: int = 1,
    optional: bool = False,
) -> Stage:
    """`depth` layers of `width` output channels, each one of `choices` by name.

    The first one has the `stride`, 1 or 2; where `optional`, the others may be absent.
    """
    width = checks.whole("width of a stage", width)
    depth = checks.whole("depth of a stage", depth)
    stride = checks.whole("stride of a stage", stride, 1, 2)
    optional = checks.truth("optional of a stage", optional)
    named = isinstance(choices, Mapping) and all(isinstance(name, str) for name in choices)
    if not (named and choices and all(isinstance(c, Choice) for c in choices.values())):
        raise UserError(
            "a stage needs choices: a dict of names, and conv(..), sepconv(..), mbconv(..) or"
            " own(..)"
        )
    if optional and ABSENT in choices:
        raise UserError(
            f"a choice is called {ABSENT!r}, which is what optional=True calls no layer"
        )
    return Stage(width, depth, stride, optional, tuple(choices), tuple(choices.values()))


def make(
    stages: Iterable[Stage],
    *,
    stem: int = 16,
    stem_stride: int = 1,
    head: int = 0,
    name: str = "layered",
) -> base.Space:
    """The space of all networks of these stages.

    `stem` channels of a 3x3 convolution of stride `stem_stride` in front, `head` of a 1x1
    convolution behind them (0: none), both with ReLU. The first choice of every layer is the
    standard that winners are compared with. Raises UserError for what makes no space.
    """
    listed = tuple(stages) if isinstance(stages, Iterable) else ()
    if not listed or not all(isinstance(s, Stage) for s in listed):
        raise UserError("a space needs a list of stages, each of stage(..)")
    ends = (
        checks.whole("stem", stem),
        checks.whole("stem_stride", stem_stride, 1, 2),
        checks.whole("head", head, 0),
    )
    spec = LayeredSpec(*ends, listed)
    _refuse_twins(spec)
    names = {
        f"stage{s}/layer{i}": [*st.names, *[ABSENT] * (st.optional and i > 0)]
        for s, st in enumerate(spec.stages)
        for i in range(st.depth)
    }
    space = categorical.choices(names, name)
    one = partial(canonical, spec)
    return space._replace(
        canonical=one,
        blocks=partial(_blocks, spec),
        graph=lambda archs: space.graph(one(archs)),
        spec=spec,
        widest=_widest(spec),
    )


def stages_of(spec: LayeredSpec) -> tuple[Stage, ...]:
    """The stages of a spec, also of one that was read from JSON."""
    return tuple(Stage(*s[:-1], tuple(Choice(*choice) for choice in s[-1])) for s in spec.stages)


def places(spec: LayeredSpec) -> list[list[tuple[int, int, int, tuple[Choice, ...]]]]:
    """(input channels, output channels, stride, choices) of each layer, by stage."""
    found, cin = [], spec.stem
    for s in stages_of(spec):
        first = (cin, s.width, s.stride, s.choices)
        absent = (Choice("none"),) if s.optional else ()
        found.append([first, *[(s.width, s.width, 1, (*s.choices, *absent))] * (s.depth - 1)])
        cin = s.width
    return found


def canonical(spec: LayeredSpec, archs: Array) -> Array:
    """[N, T] -> [N, T]: of equal choices the first, and absent layers at the end of their stage."""
    columns: list[Array] = []
    for of_stage in places(spec):
        tables = [jnp.asarray(_first_equal(*place)) for place in of_stage]
        start = len(columns)
        columns += [table[archs[:, start + i]] for i, table in enumerate(tables)]
        if len(of_stage) > 1 and of_stage[1][-1][-1].op == "none":
            rest = jnp.stack(columns[start + 1 :], axis=1)
            order = jnp.argsort(rest == len(of_stage[1][-1]) - 1, axis=1, stable=True)
            columns[start + 1 :] = list(jnp.take_along_axis(rest, order, axis=1).T)
    return jnp.stack(columns, axis=1).astype(jnp.int32)


def _effective(cin: int, cout: int, stride: int, choice: Choice) -> Choice:
    """The choice without an identity that does not fit."""
    lost = choice.skip == "identity" and (stride != 1 or cin != cout)
    return choice._replace(skip="none") if lost else choice


def _first_equal(cin: int, cout: int, stride: int, choices: tuple[Choice, ...]) -> list[int]:
    """For each choice the first one that is the same layer here."""
    here = [_effective(cin, cout, stride, choice) for choice in choices]
    return [here.index(choice) for choice in here]


def _refuse_twins(spec: LayeredSpec) -> None:
    """Raises UserError where the end of one stage could as well be the start of the next."""
    by_stage = places(spec)
    for s, (of_stage, following) in enumerate(itertools.pairwise(by_stage)):
        last, first = of_stage[-1], following[0]
        if not (spec.stages[s].optional and len(of_stage) > 1 and last[:3] == first[:3]):
            continue
        if {_effective(*last[:3], c) for c in last[3]} & {
            _effective(*first[:3], c) for c in first[3]
        }:
            raise UserError(
                f"stage {s} is optional, and stage {s + 1} goes on with the same width and some of"
                " the same layers, so that one network would have several names: make one stage of"
                " them"
            )


def _widest(spec: LayeredSpec) -> tuple[int, ...]:
    """The choice of each layer whose tensors are the largest: never that of no layer.

    Where none is the largest in everything, the one with the most inner channels.
    """

    def size(choice: Choice) -> tuple[Any, ...]:
        inner = choice.expansion + (choice.op == "sepconv")
        return choice.op != "none", inner, choice.kernel, choice.se

    flat = [place[-1] for of_stage in places(spec) for place in of_stage]
    return tuple(sizes.index(max(sizes)) for sizes in ([*map(size, choices)] for choices in flat))


def _blocks(spec: LayeredSpec, archs: Array) -> Array:
    """[N, T, F]: one-hot operation, activation, skip and own layer; kernel / 7, expansion / 6, SE.

    Two layers of one place have equal descriptors exactly when they are the same layer.
    """
    flat = [place for of_stage in places(spec) for place in of_stage]
    every = [choice for place in flat for choice in place[-1]]
    classes = dict.fromkeys(_class(choice) for choice in every if choice.op == "own")
    codes = OPS, ACTS, SKIPS, tuple(classes)
    table = np.zeros((len(flat), max(len(p[-1]) for p in flat), sum(map(len, codes)) + 3))
    for t, (cin, cout, stride, choices) in enumerate(flat):
        for k, choice in enumerate(choices):
            c = _effective(cin, cout, stride, choice)
            kinds = c.op, c.act, c.skip, _class(c)
            one_hot = [[kind == v for v in of] for kind, of in zip(kinds, codes, strict=True)]
            numbers = c.kernel / 7, c.expansion / 6, c.se
            table[t, k] = [*itertools.chain(*one_hot), *numbers]
    return jnp.asarray(table, jnp.float32)[np.arange(len(flat)), canonical(spec, archs)]


def _class(choice: Choice) -> tuple[Any, ...]:
    """What tells layers of the user's own apart."""
    return choice.module, choice.options, choice.text

"""The source of one network as a module of its own: model.py of an export."""

from __future__ import annotations

import builtins
import inspect
import json
import symtable
import sys
from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from fnas_jax.core import attributes
from fnas_jax.core.types import UserError
from fnas_jax.layers import own
from fnas_jax.objectives.base import Objective
from fnas_jax.ship import inputs, model, stock
from fnas_jax.spaces import cells

# What each operation of `networks.readable` is made of, beside conv and norm, which all use.
_PARTS: dict[str, tuple[Any, ...]] = {
    "conv": (stock.average, stock.gate, stock.skipped, stock.ConvLayer),
    "sepconv": (stock.average, stock.gate, stock.skipped, stock.DepthwiseLayer),
    "mbconv": (stock.average, stock.gate, stock.skipped, stock.DepthwiseLayer),
    "cell": (stock.average, stock.Cell),
    "mixed cell": (stock.average, stock.Cell),
    "residual reduction": (stock.average, stock.Reduction),
    "own": (stock.average, stock.skipped),
    "score and sum": (stock.total,),
}
_IMPORTED = {"nn": nn, "jax": jax, "jnp": jnp, "Any": Any}  # what a layer of the user's may use
_ACTS = {"none": "linear", "relu": "nn.relu", "relu6": "nn.relu6", "hard_swish": "nn.hard_swish"}
_LOADER = '''
def load(folder=pathlib.Path(__file__).parent):
    """The function from images to (@first@ @shape@, @second@ @other@)."""
    weights = safetensors.numpy.load_file(pathlib.Path(folder) / "weights.safetensors")
    variables = traverse_util.unflatten_dict(weights, sep="/")

    @jax.jit
    def predict(images):
        with jax.default_matmul_precision("highest"):  # float32 on accelerators, too
            outputs = Network().apply(variables, normalise(images))
        return @source@

    return predict
'''
_NORMALISE = '''
def normalise(images):
    """Images [N, HEIGHT, WIDTH, CHANNELS] with pixels as stored -> what the network takes."""
    mean, std = jnp.asarray(MEAN, jnp.float32), jnp.asarray(STD, jnp.float32)
    return (images.astype(jnp.float32) - mean) / std
'''


def source(record: dict[str, Any]) -> str:
    """Python source of the network that `record`, the content of architecture.json, describes.

    It needs jax, flax and safetensors, and reads weights.safetensors beside it. Raises UserError
    for a layer of the user's own that uses more than it may.
    """
    layers = record["layers"]
    parts = [_head(record), _NORMALISE.strip("\n"), *_definitions(layers), *_own(layers)]
    parts += [_network(record["layers"]), _loader(record)]
    return "\n\n\n".join(parts) + "\n"


def _objective(record: dict[str, Any]) -> Objective:
    return model.objective_of(record, inputs.parse(record["inputs"]).class_names)


def _loader(record: dict[str, Any]) -> str:
    """`load`, whose function answers as the objective does."""
    objective, text = _objective(record), _LOADER.strip("\n")
    said = {"source": objective.source}
    said |= dict(zip(("first", "second"), objective.pair, strict=True))
    said |= dict(zip(("shape", "other"), objective.shapes, strict=True))
    for name, value in said.items():
        text = text.replace(f"@{name}@", value)
    return text


def _head(record: dict[str, Any]) -> str:
    taken, objective = inputs.parse(record["inputs"]), _objective(record)
    first, second = objective.pair
    sizes = f"{taken.height}, {taken.width}, {taken.channels}"
    name = record["data"]["name"].replace("\\", "/").replace('"', "'")  # it may be any path
    return f'''"""A network for {name}, found by architecture search (fnas_jax).

{record["description"]["text"]}

    predict = load()
    {first}, {second} = predict(images)

Images are {taken.dtype} [N, {sizes}], {taken.low:g} to {taken.high:g}; those of other
sizes were resized: {record["inputs"]["resize"]}.
{_tested(objective, record["accuracy"]["test"])}
"""

from __future__ import annotations

import pathlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import safetensors.numpy
from flax import traverse_util

HEIGHT, WIDTH, CHANNELS = {sizes}
MEAN = {taken.mean!r}  # of each channel, in units of pixels
STD = {taken.std!r}
CLASSES = (
{_wrapped([_quoted(name) for name in taken.class_names], 4)}
)'''


def _tested(objective: Objective, test: float | None) -> str:
    """What the network comes to on test images, in a sentence. None: nobody knows."""
    name, sign = objective.measure.name, objective.measure.sign
    value = "unknown" if test is None else f"{sign * test:.4f}"
    return f"{name[0].upper()}{name[1:]} on test images: {value}."


def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


def _wrapped(arguments: Iterable[str], indent: int) -> str:
    """`arguments` one behind the other, as many on a line as it holds."""
    lines, width = [""], 100 - indent
    for argument in arguments:
        longer = f"{lines[-1]} {argument},".strip()
        lines[-1:] = [longer] if len(longer) <= width else [lines[-1], f"{argument},"]
    return "\n".join(" " * indent + line for line in lines if line)


def _definitions(layers: list[dict[str, Any]]) -> Iterable[str]:
    """The source of what the layers are made of, in the order of `stock`."""
    needed: set[Callable[..., Any]] = {stock.conv, stock.norm}
    for layer in layers:
        if layer.get("activation") == "none":
            needed.add(stock.linear)
        if "skip" in layer or layer["op"] not in ("conv", "norm"):
            needed.update(_PARTS.get(layer["op"], ()))
    for cls in _classes(layers):
        needed |= _stock_of(cls)
    found = sorted(needed, key=lambda part: inspect.getsourcelines(part)[1])
    return [inspect.getsource(part).rstrip("\n") for part in found]


def _classes(layers: list[dict[str, Any]]) -> list[type]:
    """The classes of the layers of the user's own, each once."""
    return list(dict.fromkeys(own.class_of(layer) for layer in layers if layer["op"] == "own"))


def _stock_of(part: Any) -> set[Any]:
    """What a class or function uses of `stock`, and what these use."""
    known = set(_IMPORTED.values())
    found = {getattr(stock, name) for name in _outside(part) if hasattr(stock, name)} - known
    return found.union(*map(_stock_of, found))


def _outside(part: Any) -> set[str]:
    """What a class or function uses that neither it nor Python defines."""

    def names(table: symtable.SymbolTable) -> Iterable[str]:
        top = table.get_type() == "module"
        for symbol in table.get_symbols():
            own_name = symbol.is_assigned() or symbol.is_namespace()
            if symbol.is_referenced() and (symbol.is_global() or (top and not own_name)):
                yield symbol.get_name()
        for inner in table.get_children():
            yield from names(inner)

    table = symtable.symtable(attributes.source_of(part), part.__name__, "exec")
    return set(names(table)) - set(vars(builtins)) - {part.__name__}


def _own(layers: list[dict[str, Any]]) -> Iterable[str]:
    """The source of the layers of the user's own. Raises UserError where it would not run."""
    taken = {name for name, part in vars(stock).items() if callable(part)} | {"Network"}
    for cls in _classes(layers):
        given = vars(sys.modules[cls.__module__])
        allowed = _IMPORTED | vars(stock)
        wrong = sorted(n for n in _outside(cls) if given.get(n) is not allowed.get(n, cls))
        if wrong or cls.__name__ in taken:
            what = f"uses {wrong[0]!r}" if wrong else "has the name of another part"
            raise UserError(
                f"the layer {cls.__module__}:{cls.__name__} {what}, so it cannot be written as"
                " source; a layer may use nn, jax, jnp and what fnas_jax.ship.stock has, by these"
                " names"
            )
        taken.add(cls.__name__)
        yield attributes.source_of(cls).rstrip("\n")


def _network(layers: list[dict[str, Any]]) -> str:
    dense = layers[-1]["op"] == "score and sum"
    lines = ["size, scores = x.shape[1:3], []"] * dense
    lines += [line for layer in layers for line in _calls(layer)]
    logits = "[N, HEIGHT, WIDTH, len(CLASSES)]" if dense else "[N, len(CLASSES)]"
    body = "\n".join(f"        {line}" for line in lines)
    return f'''class Network(nn.Module):
    """Normalised images [N, HEIGHT, WIDTH, CHANNELS] -> logits {logits}."""

    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        """`train`: normalises by the batch, and records its moments."""
{body}'''


def _calls(layer: dict[str, Any]) -> list[str]:
    """The lines of `Network.__call__` for one record of `networks.readable`."""
    name, out = _quoted(layer["name"]), layer["out"]
    if layer["op"] in ("cell", "mixed cell"):
        listed = [
            f"        ({one.source}, {one.target}, {_quoted(one.op)}, {_quoted(one.name)}),"
            for one in cells.of_texts(layer, several=layer["op"] == "mixed cell")
        ]
        given = ["    edges=(", *listed, "    ),"] if listed else ["    edges=(),"]
        return ["x = Cell(", *given, f"    name={name},", ")(x, train)"]
    if layer["op"] == "residual reduction":
        return [f"x = Reduction({out}, name={name})(x, train)"]
    if layer["op"] == "average and dense":
        return [_dense(layer, "x.mean((1, 2))")]
    if layer["op"] == "dense":
        return [_dense(layer, "x")]
    if layer["op"] == "score":
        normed = f"nn.relu(norm({_quoted(layer['name'] + '_norm')}, train)(x))"
        read = normed if layer["normalised"] else "x"
        return [f"scores.append(nn.Dense({out}, use_bias=False, name={name})({read}))"]
    if layer["op"] == "score and sum":
        return [
            f"scores.append(nn.Dense({out}, name={name})(x))",
            "return total(scores, size)",
        ]
    if layer["op"] == "own":
        given = [f"features={out}", f"stride={layer['stride']}"]
        given += [f"{option}={value!r}" for option, value in layer["options"].items()]
        made = _wrapped([*given, f"name={name}"], 12).replace(" " * 12, "    ").split("\n")
        lines = [f"h = {layer['module'].rpartition(':')[2]}(", *made, ")(x, train)"]
        return [*lines, f"x = skipped(x, h, {_quoted(layer['skip'])}, {layer['stride']})"]
    act = _ACTS[layer["activation"]]
    if layer["op"] == "norm":
        return [f"x = {act}(norm({name}, train)(x))"]
    if "skip" not in layer:  # stem and head
        size = f"{layer['kernel']}, {layer['stride']}"
        return [
            f"x = conv({name}, {out}, {size})(x)",
            f"x = {act}(norm({_quoted(layer['name'] + '_norm')}, train)(x))",
        ]
    return [
        f"x = {'ConvLayer' if layer['op'] == 'conv' else 'DepthwiseLayer'}(",
        *_wrapped(_arguments(layer, act), 12).replace(" " * 12, "    ").split("\n"),
        ")(x, train)",
    ]


def _dense(layer: dict[str, Any], read: str) -> str:
    """The line of a linear layer of `read`: the last one, or one with an activation."""
    made = f"nn.Dense({layer['out']}, name={_quoted(layer['name'])})({read})"
    return (
        f"x = {_ACTS[layer['activation']]}({made})" if "activation" in layer else f"return {made}"
    )


def _arguments(layer: dict[str, Any], act: str) -> list[str]:
    found = [f"out={layer['out']}", f"kernel={layer['kernel']}", f"stride={layer['stride']}"]
    if layer["op"] != "conv":
        found += [f"middle={layer['middle']}", f"expand={layer['op'] == 'mbconv'}"]
    found += [f"squeeze={layer['squeeze_excitation']}", f"skip={_quoted(layer['skip'])}"]
    found += [f"weigh=nn.{layer['gate']}"] if "gate" in layer else []
    return [*found, f"act={act}", f"name={_quoted(layer['name'])}"]

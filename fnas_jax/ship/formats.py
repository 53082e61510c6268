"""A kept network in the formats of other programs: for each, the files of a folder of its own.

flax: source of exactly this network, with its weights. jax: a program of StableHLO for CPUs, CUDA
and TPUs, which needs JAX only. onnx: a graph for any runtime of ONNX. safetensors: `best/` as it
is. All but the last normalise by themselves, and hold a loader of a few lines; architecture.json
stands beside each.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
import pathlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax import export

from fnas_jax.core.types import UserError
from fnas_jax.ship import best, flax_source
from fnas_jax.ship.model import Model, answer

PLATFORMS = ("cpu", "cuda", "tpu")
_JAX = "network.jax_export"
_ONNX = "network.onnx"
_NEEDED = ("jax2onnx", "onnx", "onnxruntime")  # for ONNX
_LOAD_JAX = '''"""Loads the network; needs JAX only.

    predict = load()
    {first}, {second} = predict(images)  # {dtype} [N, {height}, {width}, {channels}], N >= 1
"""

import pathlib

import jax
from jax import export


def load(folder=pathlib.Path(__file__).parent):
    """The function from images to ({first} {shape}, {second} {other})."""
    content = (pathlib.Path(folder) / "{file}").read_bytes()
    return jax.jit(export.deserialize(bytearray(content)).call)
'''
_LOAD_ONNX = '''"""Loads the network; needs onnxruntime only.

    predict = load()
    {first}, {second} = predict(images)  # {dtype} [N, {height}, {width}, {channels}], N >= 1
"""

import pathlib

import onnxruntime


def load(folder=pathlib.Path(__file__).parent):
    """The function from images to ({first} {shape}, {second} {other})."""
    session = onnxruntime.InferenceSession(str(pathlib.Path(folder) / "{file}"))
    return lambda images: session.run(["{first}", "{second}"], {{"images": images}})
'''


def files_of(name: str, model: Model, kept: pathlib.Path) -> dict[str, bytes]:
    """The files of the format `name` of the network in the folder `kept`.

    Raises UserError where packages are missing.
    """
    return FORMATS[name](model, kept) | _copied(kept, best.ARCHITECTURE)


def check(name: str) -> None:
    """Raises UserError where the packages that the format `name` needs are missing."""
    missing = [p for p in _NEEDED if name == "onnx" and importlib.util.find_spec(p) is None]
    if missing:
        raise UserError(
            f"the format onnx needs {' and '.join(missing)}: pip install fnas-jax[onnx]"
        )


def _flax(model: Model, kept: pathlib.Path) -> dict[str, bytes]:
    source = flax_source.source(model.architecture)
    return {"model.py": source.encode(), **_copied(kept, best.WEIGHTS)}


def _jax(model: Model, kept: pathlib.Path) -> dict[str, bytes]:
    shape = export.symbolic_shape(f"n, {', '.join(map(str, _image(model)))}")
    images = jax.ShapeDtypeStruct(shape, model.inputs.dtype)
    exported = export.export(jax.jit(_predict(model)), platforms=PLATFORMS)(images)
    return {_JAX: bytes(exported.serialize()), "load.py": _loader(_LOAD_JAX, model, _JAX)}


def _onnx(model: Model, kept: pathlib.Path) -> dict[str, bytes]:
    check("onnx")
    with _silent():
        jax2onnx = importlib.import_module("jax2onnx")
    images = jax.ShapeDtypeStruct(("N", *_image(model)), model.inputs.dtype)
    predict, names = _predict(model), list(model.objective.pair)
    twice = one_value(predict, jax.ShapeDtypeStruct((1, *_image(model)), images.dtype))
    with _silent():
        graph = jax2onnx.to_onnx(
            (lambda x: predict(x)[0]) if twice else predict,
            inputs=[images],
            model_name="network",
            input_names=["images"],
            output_names=names[:1] if twice else names,
        )
    if twice:
        _add_copy(graph.graph, *names)
    # Shapes between the layers, in the order of JAX's axes where the graph has others by then.
    del graph.graph.value_info[:]
    return {_ONNX: graph.SerializeToString(), "load.py": _loader(_LOAD_ONNX, model, _ONNX)}


def one_value(predict: Callable[..., Any], images: jax.ShapeDtypeStruct) -> bool:
    """Whether answers and scores are one array, which has one name only in a graph of ONNX."""
    answers, scores = jax.make_jaxpr(predict)(images).jaxpr.outvars
    return answers is scores


def _add_copy(graph: Any, first: str, second: str) -> None:
    """Gives the graph, whose only output is `first`, a second one of the same numbers."""
    node = graph.node.add()
    node.op_type = "Identity"
    node.input.append(first)
    node.output.append(second)
    output = graph.output.add()
    output.CopyFrom(graph.output[0])
    output.name = second


def _safetensors(model: Model, kept: pathlib.Path) -> dict[str, bytes]:
    return _copied(kept, best.WEIGHTS, best.CARD)


FORMATS: dict[str, Callable[[Model, pathlib.Path], dict[str, bytes]]] = {
    "safetensors": _safetensors,
    "flax": _flax,
    "jax": _jax,
    "onnx": _onnx,
}


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the chatter of a converter, whose result is judged anyway."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _predict(model: Model) -> Callable[..., Any]:
    """Images as stored -> (answers, scores); the weights are constants of it."""
    return functools.partial(answer, model.objective, model.module, model.inputs, model.variables)


def _image(model: Model) -> tuple[int, int, int]:
    return model.inputs.height, model.inputs.width, model.inputs.channels


def _loader(template: str, model: Model, file: str) -> bytes:
    said = dict(zip(("first", "second"), model.objective.pair, strict=True))
    said |= dict(zip(("shape", "other"), model.objective.shapes, strict=True))
    taken = model.inputs._asdict() | said | {"file": file}
    return template.format(**taken).encode()


def _copied(kept: pathlib.Path, *names: str) -> dict[str, bytes]:
    return {name: (kept / name).read_bytes() for name in names}

"""The layers of one architecture in words, one record a layer: for people and for programs."""

from __future__ import annotations

from typing import Any

from fnas_jax.layers import own
from fnas_jax.layers.spec import ACTS, GATES, OPS, OWN, SKIPS, LayerSpec
from fnas_jax.networks import dense, mobile_spaces
from fnas_jax.networks.dense import Dense, Outputs
from fnas_jax.networks.flax_mobile import layer_name, score_name
from fnas_jax.spaces import cells


def layers(spec: Any, arch: Any, channels: int, classes: Outputs) -> list[dict[str, Any]]:
    """The layers of `flax_reference.of_spec(spec, arch, classes)` in order, JSON-ready.

    Names are those of its variables; `channels` are those of the images. Raises ValueError for
    what is no spec of networks.
    """
    if type(spec) in mobile_spaces.MODULES:
        return _mobile(spec, arch, channels, classes)
    if isinstance(spec, cells.SPECS):
        return _cells(spec, arch, channels, classes)
    raise ValueError(f"there are no networks of {type(spec).__name__}")


def _mobile(spec: Any, arch: Any, channels: int, classes: Outputs) -> list[dict[str, Any]]:
    act = ACTS[mobile_spaces.act(spec)]
    found = [_conv("stem", 3, spec.stem_stride, channels, spec.stem, act)]
    scores = 0
    for stack, position, stride, layer in mobile_spaces.layers_of(spec, arch):
        if stride > 1 and isinstance(classes, Dense):
            found.append(_score(scores, _width(found), classes))
            scores += 1
        found.append({"name": layer_name(stack, position), **_layer(layer, stride)})
    features = _width(found)
    if spec.head:
        found.append(_conv("head", 1, 1, features, spec.head, act))
    features, mix = spec.head or features, mobile_spaces.mix(spec)
    if mix:
        found.append(_mix(features, mix, act, classes))
    return [*found, _classifier(mix or features, classes, averaged=bool(mix))]


def _layer(layer: LayerSpec, stride: int) -> dict[str, Any]:
    if layer.op >= OWN:
        of = own.of(layer.op)
        what = {"op": "own", "module": of.module, "options": dict(of.options), "text": of.text}
        sizes = {"stride": stride, "in": layer.cin, "out": layer.cout}
        return what | sizes | {"skip": SKIPS[layer.skip]}
    record = {
        "op": OPS[layer.op],
        "kernel": layer.kernel,
        "stride": stride,
        "in": layer.cin,
        "middle": layer.middle,  # channels of the depthwise convolution
        "out": layer.cout,
        "squeeze_excitation": layer.se_hidden,  # hidden units
        "skip": SKIPS[layer.skip],
        "activation": ACTS[layer.activation],
    }
    if layer.hard_gate:
        record["gate"] = GATES[layer.hard_gate]  # of squeeze-excitation; else a sigmoid
    return {name: value for name, value in record.items() if name != "middle" or value}


def _conv(name: str, kernel: int, stride: int, cin: int, cout: int, act: str) -> dict[str, Any]:
    return {
        "name": name,
        "op": "conv",
        "kernel": kernel,
        "stride": stride,
        "in": cin,
        "out": cout,
        "activation": act,
    }


def _width(found: list[dict[str, Any]]) -> int:
    """Channels of what the layers so far make; scores stand beside them."""
    return next(layer["out"] for layer in reversed(found) if layer["op"] != "score")


def _score(number: int, features: int, classes: Dense, norm: bool = False) -> dict[str, Any]:
    """Logits of pixels by what stands before, a resolution's last output, beside what follows."""
    sizes = {"in": features, "out": classes.outputs, "normalised": norm}
    return {"name": score_name(number), "op": "score"} | sizes


def _mix(features: int, units: int, act: str, classes: Outputs) -> dict[str, Any]:
    """The linear layer before the last one, of the average or of every pixel."""
    op = "dense" if isinstance(classes, Dense) else "average and dense"
    return {"name": "mix", "op": op, "in": features, "out": units, "activation": act}


def _classifier(features: int, classes: Outputs, averaged: bool = False) -> dict[str, Any]:
    """The last layer; "score and sum": of every pixel, and all scores are added at its size."""
    op = "dense" if averaged else "average and dense"
    op = "score and sum" if isinstance(classes, Dense) else op
    return {"name": "classifier", "op": op, "in": features, "out": dense.count(classes)}


def _cells(spec: Any, arch: Any, channels: int, classes: Outputs) -> list[dict[str, Any]]:
    edges, width = cells.texts(spec, arch), spec.channels
    op = "mixed cell" if isinstance(spec, cells.MIXED) else "cell"
    found = [_conv("stem", 3, 1, channels, width, "none")]
    for stage in range(spec.stages):
        if stage:
            if isinstance(classes, Dense):
                found.append(_score(stage - 1, width, classes, norm=True))
            reduction = {"op": "residual reduction", "stride": 2, "in": width, "out": 2 * width}
            found.append({"name": f"reduction{stage - 1}", **reduction})
            width *= 2
        found += [
            {"name": f"stage{stage}_cell{c}", "op": op, "in": width, "out": width} | edges
            for c in range(spec.cells_per_stage)
        ]
    last = {"name": "last_norm", "op": "norm", "in": width, "out": width, "activation": "relu"}
    return [*found, last, _classifier(width, classes)]

"""Times an exported network as its user would run it: in a process without fnas_jax."""

from __future__ import annotations

import json
import pathlib
from typing import Any, NamedTuple

from fnas_jax.core import jsons
from fnas_jax.core.types import UserError
from fnas_jax.ship import best, inputs, outside

WARM_UP = 10  # calls before the clock starts
# argv: folder, name of the module with `load`, shape and type of images, passes.
_PROGRAM = """
import importlib, json, sys, time
import numpy as np
folder, name, shape, dtype, passes = sys.argv[1:]
sys.path.insert(0, folder)
predict = importlib.import_module(name).load()
images, device, wait = np.zeros(json.loads(shape), dtype), "cpu", lambda found: found
if "jax" in sys.modules:
    import jax
    images, wait, device = jax.device_put(images), jax.block_until_ready, jax.devices()[0]
    device = f"{device.platform}: {device.device_kind}"
spent = []
for _ in range(int(passes)):
    start = time.perf_counter()
    wait(predict(images))
    spent.append(time.perf_counter() - start)
assert "fnas_jax" not in sys.modules
print(json.dumps({"ms": [1e3 * s for s in spent], "device": device}))
"""


class Timing(NamedTuple):
    """Milliseconds of passes of an exported network, and by what."""

    ms: list[float]  # of each pass, in order
    device: str
    batch_size: int  # images of a pass


def artefact(folder: pathlib.Path, batch: int, passes: int) -> Timing:
    """Times `passes` passes of `batch` images by the network that was exported to `folder`.

    On the device that the format's own loader takes. Images are there already, as JAX has them.
    Raises UserError where there is no export to JAX, Flax or ONNX, or it cannot be loaded.
    """
    module = module_of(folder)
    record: Any = jsons.read(folder / best.ARCHITECTURE)
    try:
        taken = inputs.parse(record["inputs"])
    except inputs.DAMAGE as error:
        place = str(folder / best.ARCHITECTURE)
        raise UserError(f"{place!r} is damaged: {type(error).__name__}: {error}") from error
    shape = json.dumps([batch, taken.height, taken.width, taken.channels])
    arguments = [str(folder.absolute()), module, shape, taken.dtype, str(WARM_UP + passes)]
    try:
        printed = outside.run(_PROGRAM, arguments, {"PYTHONPATH": ""})
    except RuntimeError as error:
        raise UserError(f"the network in {str(folder)!r} cannot be run: {error}") from None
    found = json.loads(printed.splitlines()[-1])
    return Timing(found["ms"][WARM_UP:], found["device"], batch)


def module_of(folder: pathlib.Path) -> str:
    """The module in `folder` whose `load` gives the network. Raises UserError."""
    for name in ("load", "model"):
        if (folder / f"{name}.py").is_file() and (folder / best.ARCHITECTURE).is_file():
            return name
    raise UserError(
        f"{str(folder)!r} is no network exported to jax, flax or onnx, of which each has a folder"
        " of its own; python -m fnas_jax.export --workdir=RUN --out=FOLDER writes these"
    )

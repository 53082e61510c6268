"""Judges an exported network as its user would run it: in a process without fnas_jax."""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np

from fnas_jax.ship import outside

BATCH = 256  # images at once
# argv: folder, name of the module with `load`, files of images and of results, images at once.
_PROGRAM = """
import importlib, sys
import numpy as np
folder, name, images, found, batch = sys.argv[1:]
sys.path.insert(0, folder)
predict = importlib.import_module(name).load()
images, batch = np.load(images), int(batch)
parts = [predict(images[i : i + batch]) for i in range(0, len(images), batch)]
answers, scores = (np.concatenate([np.asarray(p[i]) for p in parts]) for i in (0, 1))
assert "fnas_jax" not in sys.modules
np.savez(found, answers=answers, scores=scores)
"""


def outcome(folder: pathlib.Path, module: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(answers [N, ..], scores [N, ..]) by `load` of the file `module`.py in `folder`.

    On the CPU, whatever this process uses: accelerators may have room for one process only. Raises
    RuntimeError with the last line of what went wrong.
    """
    with tempfile.TemporaryDirectory() as scratch:
        given, found = pathlib.Path(scratch) / "images.npy", pathlib.Path(scratch) / "found.npz"
        np.save(given, images)
        arguments = [str(folder.absolute()), module, str(given), str(found), str(BATCH)]
        outside.run(_PROGRAM, arguments, {"JAX_PLATFORMS": "cpu"})
        with np.load(found) as arrays:
            return arrays["answers"], arrays["scores"]

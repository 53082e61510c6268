"""What a class or function is known by is the text of what runs, whatever its file says since."""

import functools
import importlib
import inspect
import os
import textwrap
import time

import pytest

import fnas_jax
from fnas_jax import layered
from fnas_jax.core import attributes, callables, live
from fnas_jax.core.types import UserError
from fnas_jax.tasks import function
from tests.layers import own_layers

MINE = """
import flax.linen as nn

class Layer(nn.Module):
    features: int
    stride: int
    kernel: int = 3

    @nn.compact
    def __call__(self, x, train):
        return nn.Conv(self.features, (self.kernel,) * 2, self.stride)(x)

def judged(decisions, more=0.25):
    return decisions["a"] / 4 + more

def other(decisions):
    return judged(decisions)
"""
EDITS = {
    "code": ("/ 4 + more", "/ 5 + more", ["judged"]),
    "default": ("more=0.25", "more=0.5", ["judged"]),
    "method": ("self.stride)(x)", "self.stride)(2 * x)", ["Layer"]),
    "field": ("kernel: int = 3", "kernel: int = 5", ["Layer"]),
    "lines": ("import flax", "import os\n\n\nimport flax", ["judged", "other"]),
}


def write(path, text):
    path.write_text(text)
    os.utime(path, (time.time() + 5,) * 2)  # later than the last write, whatever the disk's clock
    importlib.invalidate_caches()


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """(file, module) of a user's file."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"mine_{time.monotonic_ns()}"
    write(tmp_path / f"{name}.py", MINE)
    return tmp_path / f"{name}.py", importlib.import_module(name)


def test_the_text_is_that_of_the_class_until_it_is_reloaded(mine):
    path, module = mine
    first, task = layered.own(module.Layer), callables.digest(module.judged)
    write(path, MINE.replace("(2 * x)", "(x)").replace("stride)(x)", "stride)(2 * x)"))
    assert layered.own(module.Layer).text == first.text
    assert callables.digest(module.judged) == task
    importlib.reload(module)
    assert layered.own(module.Layer).text != first.text
    assert callables.digest(module.judged) == task


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_edited_before_it_was_first_asked_for_is_refused(edit, mine):
    path, module = mine
    before, after, changed = EDITS[edit]
    write(path, MINE.replace(before, after))
    space = fnas_jax.categorical({"a": [1, 2]})
    for name in ("Layer", "judged", "other"):
        told = pytest.raises(UserError, match=f"{name} has changed since it was imported; reload")
        part = getattr(module, name)
        if name in changed:
            with told:
                attributes.written(part)
        else:
            assert attributes.written(part) in MINE
    if "judged" in changed:
        with pytest.raises(UserError, match="has changed since it was imported"):
            fnas_jax.from_function(space, module.judged)
        with pytest.raises(UserError, match="has changed since it was imported"):
            function.source_of(functools.partial(module.judged, more=0), "judged")
    importlib.reload(module)
    assert layered.own(module.Layer).text and callables.digest(module.judged)


def test_what_nobody_edited_agrees_with_its_text():
    parts = [own_layers.Ghost, own_layers.Turned, layered.own, attributes.find, live._same]
    parts += [layered.Stage, lambda x: x, function.FunctionTask, function.FunctionTask.__call__]
    for part in parts:
        text, lines = inspect.getsource(part), inspect.findsource(part)[0]
        assert live.agrees(part, textwrap.dedent(text), "".join(lines)), part

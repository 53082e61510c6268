"""Input that is damaged in every way, and what a reader may do with it."""

import contextlib
import faulthandler
import json
import os
import pathlib
import resource
import signal
import tempfile
import threading

from hypothesis import strategies as st

from fnas_jax.core.brief import MOST
from fnas_jax.core.types import UserError

SECONDS = 20.0  # of the processor: more than anything here takes
WAITED = 600.0  # of the clock, as for what waits, or never comes back from C
MEMORY = 2**30  # bytes that reading something small may take besides what there is
PAGE = os.sysconf("SC_PAGE_SIZE")


class Hangs(BaseException):
    """A reader did not come to an end."""


def read(reader, *arguments):
    """What `reader` gives, or its UserError; anything else that it raises is a fault.

    So is what takes more than `SECONDS` or `MEMORY`, and a message that is no line of a length that
    people read. After `WAITED` the process ends, and tells where it was.
    """
    with _limited():
        try:
            return reader(*arguments)
        except UserError as error:
            assert 0 < len(str(error)) <= MOST
            return error


@contextlib.contextmanager
def _limited():
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * PAGE
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_time = threading.current_thread() is threading.main_thread()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    if in_time:
        signal.signal(signal.SIGPROF, _hangs)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        faulthandler.dump_traceback_later(WAITED, exit=True)
    try:
        yield
    finally:
        if in_time:
            signal.setitimer(signal.ITIMER_PROF, 0)
            faulthandler.cancel_dump_traceback_later()
        resource.setrlimit(resource.RLIMIT_AS, before)


def _hangs(*_):
    raise Hangs


@contextlib.contextmanager
def folder(files):
    """A new folder with `files`, bytes by their paths; nothing else may be in it in the end."""
    with tempfile.TemporaryDirectory(prefix="fuzz_") as place:
        root = pathlib.Path(place)
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        yield root
        left = {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        assert left == dict(files), "a reader has changed what it reads"


@st.composite
def damaged(draw, contents):
    """Bytes of one of `contents`, whole or with some of them changed, missing or too many."""
    data = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(len(data) - 1, 0)))
        kind = draw(st.sampled_from(["change", "cut", "insert", "repeat", "zero"]))
        if kind == "change" and data:
            data[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del data[place:]
        elif kind == "insert":
            data[place:place] = draw(st.binary(max_size=20))
        elif kind == "repeat":
            data[place:place] = data[: draw(st.integers(0, 200))]
        else:
            data[place : place + 4] = draw(st.sampled_from([b"\0" * 4, b"\xff" * 4]))
    return bytes(data)


# What JSON may hold where something else is expected.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 2**31 - 1, 2**31, 2**63, 2**64, 10**400]),
    st.floats(),
    st.text(max_size=8),
    st.just("x" * 5000),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
BRACKETS = "[" * 100_000
DIGITS = "1" * 5_000


@st.composite
def odd(draw, value):
    """`value` of JSON with some of what is in it replaced, renamed, taken away or made twice."""
    value = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(0, 3))):
        value = _replaced(draw, value)
    return value


def _replaced(draw, value):
    inside = isinstance(value, dict | list) and len(value) > 0
    if not inside or not draw(st.integers(0, 4)):
        return draw(ODD)
    if isinstance(value, list):
        place = draw(st.integers(0, len(value) - 1))
        if draw(st.booleans()):
            return [*value[:place], *value[place + draw(st.sampled_from([0, 1])) :]]
        return [*value[:place], _replaced(draw, value[place]), *value[place + 1 :]]
    name = draw(st.sampled_from(sorted(value)))
    if not draw(st.integers(0, 3)):
        return {k: v for k, v in value.items() if k != name} | {draw(st.text(max_size=5)): None}
    return value | {name: _replaced(draw, value[name])}


class Short(bytes):
    """Bytes that a report does not show in full."""

    def __repr__(self):
        return f"{bytes(self[:500])!r}[:{len(self)}]"


@st.composite
def odd_json(draw, *values):
    """Bytes of a JSON file of one of `values`, odd in its values or damaged as a file."""
    value = draw(st.sampled_from(values))
    if draw(st.booleans()):
        return Short(draw(damaged([json.dumps(value).encode()])))
    text = json.dumps(draw(odd(value)))
    text = text.replace("null", draw(st.sampled_from(["null", "null", BRACKETS, DIGITS])), 1)
    return Short(text.encode())

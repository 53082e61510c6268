import errno
import io
import json
import math
import os
import struct

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto.event_pb2 import Event

from fnas_jax.core import disk
from fnas_jax.core import logging as log_lib
from fnas_jax.core.tensorboard import Scalars


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def events(folder):
    """All TensorBoard events of a folder, in the order of their files' names."""
    found = []
    for path in sorted(folder.glob("events.out.*")):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])  # length, its crc, event, its crc
            found.append(Event.FromString(content[12 : 12 + size]))
            content = content[16 + size :]
    return found


def test_json_holds_finite_numbers_or_null():
    value = {"a": np.float32(0.5), "b": [math.nan, math.inf, 1], "c": jnp.arange(2), 3: (True, "x")}
    expected = {"a": 0.5, "b": [None, None, 1], "c": [0, 1], "3": [True, "x"]}
    assert log_lib.finite(value) == expected


def test_a_json_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "x.json"
    log_lib.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        log_lib.write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
    log_lib.write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": None}


def test_lines_of_a_step_or_later_and_torn_lines_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\n{"step": 1}\nnonsense\n{"step": 2}\n{"step": 3, "los')
    log_lib.truncate_metrics(path, 2)
    assert lines(path) == [{"step": 0}, {"step": 1}]
    log_lib.truncate_metrics(tmp_path / "absent.jsonl", 2)


def write(folder, first, last, value, tensorboard=True):
    log = log_lib.MetricLog(folder, first, tensorboard)
    for step in range(first, last):
        log.write(step, {"value": value, "nothing": math.nan, "stage": "x"})
    log.close()


def test_a_resumed_log_holds_each_step_once(tmp_path):
    write(tmp_path, 0, 5, 1.0)
    write(tmp_path, 3, 6, 2.0)
    found = lines(tmp_path / "metrics.jsonl")
    assert [entry["step"] for entry in found] == list(range(6))
    assert [entry["value"] for entry in found] == [1.0] * 3 + [2.0] * 3
    assert found[0]["nothing"] is None


def test_tensorboard_is_told_to_forget_what_a_resume_repeats(tmp_path):
    write(tmp_path, 0, 5, 1.0)
    write(tmp_path, 3, 6, 2.0)
    found = events(tmp_path / "tensorboard")
    scalars = [(e.step, v.simple_value) for e in found for v in e.summary.value]
    assert scalars == [(s, 1.0) for s in range(5)] + [(s, 2.0) for s in range(3, 6)]
    assert all(v.tag == "value" for e in found for v in e.summary.value)
    restarts = [e.step for e in found if e.HasField("session_log")]
    assert restarts == [3]


def test_tensorboard_can_be_left_out(tmp_path):
    write(tmp_path, 0, 2, 1.0, tensorboard=False)
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("owner", [log_lib.MetricLog, Scalars])
def test_a_log_on_a_full_disk_says_so_where_it_is_told(owner, tmp_path, monkeypatch):
    """Also of TensorBoard's events, whose own writer would say it in a thread."""

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = log_lib.MetricLog(tmp_path, 0, tensorboard=True)
    log.write(0, {"value": 1.0})
    if owner is Scalars:
        monkeypatch.setattr(log._writer, "flush", Full().flush)
    else:
        log._file.close()
        log._file = Full()
    with pytest.raises(disk.Refused, match=r"metrics.jsonl' is full"):
        log.write(1, {"value": 2.0})

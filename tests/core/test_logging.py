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
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from fnas_jax.core import disk, tensorboard
from fnas_jax.core import logging as log_lib
from fnas_jax.core.tensorboard import Events
from fnas_jax.methods.fnas import uac
from fnas_jax.methods.fnas.method import RULES
from fnas_jax.methods.rl import ppo


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


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_lines_are_read_from_the_end_in_blocks_of_any_size(block, tmp_path, monkeypatch):
    monkeypatch.setattr(log_lib, "BLOCK", block)
    path = tmp_path / "metrics.jsonl"
    assert [*log_lib.from_the_end(path)] == []
    for text in ("", "\n", '{"step": 0}', '{"step": 0}\n\n{"step": -1}\nno\n{"step": 12}\n{"st'):
        path.write_text(text)
        assert [*log_lib.from_the_end(path)] == log_lib.metric_lines(path)[::-1]


def test_no_more_is_read_than_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(log_lib, "BLOCK", 40)
    path, parsed = tmp_path / "metrics.jsonl", []
    path.write_text(
        "".join(f'{{"step": {i}, "iteration": {i}, "proposed": 1}}\n' for i in range(99))
    )
    parse = log_lib.jsons.parse
    monkeypatch.setattr(log_lib.jsons, "parse", lambda t: (parsed.append(t), parse(t))[1])
    assert log_lib.last_line(path)["step"] == 98
    assert len(parsed) < 3


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
    assert all(v.tag == "prepare/value" for e in found for v in e.summary.value)
    restarts = [e.step for e in found if e.HasField("session_log")]
    assert restarts == [3]


def test_tensorboard_can_be_left_out(tmp_path):
    write(tmp_path, 0, 2, 1.0, tensorboard=False)
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("owner", [log_lib.MetricLog, Events])
def test_a_log_on_a_full_disk_says_so_where_it_is_told(owner, tmp_path, monkeypatch):
    """Also of TensorBoard's events, whose own writer would say it in a thread."""

    class Full(io.StringIO):
        def flush(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    log = log_lib.MetricLog(tmp_path, 0, tensorboard=True)
    log.write(0, {"value": 1.0})
    if owner is Events:
        monkeypatch.setattr(log._events, "flush", Full().flush)
    else:
        log._file.close()
        log._file = Full()
    with pytest.raises(disk.Refused, match=r"metrics.jsonl' is full"):
        log.write(1, {"value": 2.0})


@pytest.mark.parametrize(
    ("name", "stage", "tag"),
    [
        ("trained", "", "search/trained"),
        ("accuracy", "", "children/accuracy"),
        ("entropy", "", "policy/entropy"),
        ("mae_explored", "", "critic/mae_explored"),
        ("pool/entries", "", "pool/entries"),
        ("seconds/compile", "", "time/compile"),
        ("anything", "", "method/anything"),
        ("entropy", "prepare", "prepare/entropy"),
    ],
)
def test_numbers_are_shown_in_groups(name, stage, tag):
    assert tensorboard.tag(name, stage) == tag


def test_the_numbers_of_our_methods_have_a_group_of_their_own():
    names = (*ppo.STATS, *uac.STATS, *(f"for_{rule}" for rule in RULES), "best_reward", "proposed")
    assert {tensorboard.tag(name).partition("/")[0] for name in names} == {
        *("policy", "critic", "search")
    }


def test_only_numbers_of_a_line_are_scalars():
    line = {"step": 3, "trained": 2, "loss": None, "pairs": {"std": [1.0]}, "policy": [[0.5]]}
    assert tensorboard.numbers(line | {"ok": True}) == {"search/trained": 2}


def test_settings_and_the_summary_stand_beside_the_scalars(tmp_path):
    log = log_lib.MetricLog(tmp_path, 5, tensorboard=True)
    log.settings({"ppo.clip": 0.2, "search.budget": 8, "method.name": "fnas", "x": (1, 2)})
    figures = {"winner/accuracy": 0.5, "winner/mflops": math.nan, "winner/architecture": "net"}
    log.finish(7, "first line\nsecond line", figures, [])
    log.close()
    found = {v.tag: (e.step, v) for e in events(tmp_path / "tensorboard") for v in e.summary.value}
    assert set(found) == {
        *("_hparams_/experiment", "_hparams_/session_start_info", "winner/accuracy"),
        "summary/text_summary",
    }
    step, text = found["summary/text_summary"]
    assert step == 7 and text.tensor.string_val == [b"    first line\n    second line"]
    step, begun = found["_hparams_/session_start_info"]
    assert step == 5  # a step of before would be out of order where a search goes on
    content = begun.metadata.plugin_data.content
    told = HParamsPluginData.FromString(content).session_start_info.hparams
    assert told["search.budget"].number_value == 8 and told["x"].string_value == "(1, 2)"
    content = found["_hparams_/experiment"][1].metadata.plugin_data.content
    experiment = HParamsPluginData.FromString(content).experiment
    assert [m.name.tag for m in experiment.metric_infos] == list(log_lib.SHOWN)
    # What tells searches apart is shown first.
    names = [info.name for info in experiment.hparam_infos]
    assert names == ["method.name", "search.budget", "ppo.clip", "x"]
    assert (tmp_path / "metrics.jsonl").read_text() == ""

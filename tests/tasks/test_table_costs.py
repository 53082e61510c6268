"""Rows without a cost: unknown where nobody asks for it, else left out or refused, always told."""

import numpy as np
import pytest

from fnas_jax.core.config import default
from fnas_jax.core.types import UserError
from fnas_jax.tasks import tabular

TEXT = "decision_0,acc,mflops\n0,0.9,-1\n1,0.6,inf\n2,0.7,3\n3,0.8,\n4,0.85,0\n5,0.5,4\n"


def task_of(folder, text=TEXT, **changes):
    (folder / "t.csv").write_text(text)
    config = default()
    config.update_from_flattened_dict({"task.name": f"tabular/{folder}/t.csv"})
    config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
    return tabular.build(config)


def test_what_is_no_cost_is_unknown_and_told_with_its_line(tmp_path):
    task = task_of(tmp_path)
    (note,) = (n for n in task.said if "mflops" in n)
    assert "4 of 6 rows (line 2: '-1', line 3: 'inf', line 5: '', and 1 more)" in note
    assert task.existing is None  # all rows are there


@pytest.mark.parametrize("changes", [{"limits__mflops": 3.5}, {"reward__cost": "mflops"}])
def test_rows_without_a_wanted_cost_are_left_out_and_counted(tmp_path, changes):
    changes |= {"reward__target": 3.0}
    task = task_of(tmp_path, **changes)
    key = "limits.mflops" if "limits__mflops" in changes else "reward.cost"
    assert any(f"left out, because {key} needs their mflops: 4 of 6" in n for n in task.said)
    assert np.asarray(task.existing).tolist() == [[2], [5]]
    with pytest.raises(UserError, match=r"no mflops in 4 of 6 rows \(line 2: '-1'.*leave_out"):
        task_of(tmp_path, task__missing_costs="refuse", **changes)


def test_the_protocol_is_that_of_the_whole_table_whatever_the_reward_leaves_out(tmp_path):
    left_out = task_of(tmp_path, limits__mflops=3.5)
    assert left_out.evaluator.protocol == task_of(tmp_path).evaluator.protocol


def test_a_column_without_any_cost_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no row of table t has mflops.*line 2: '-1'"):
        task_of(tmp_path, "decision_0,acc,mflops\n0,0.9,-1\n1,0.8,nan\n", limits__mflops=3.0)
    with pytest.raises(UserError, match=r"limits.mflops is 3, which table t does not hold"):
        task_of(tmp_path, "decision_0,acc\n0,0.9\n1,0.8\n", limits__mflops=3.0)


def test_a_text_for_a_cost_is_told_with_its_line(tmp_path):
    with pytest.raises(UserError, match="line 2: mflops is 'many'; it must be a number"):
        task_of(tmp_path, "decision_0,acc,mflops\n0,0.9,many\n")

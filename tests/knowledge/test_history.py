import contextlib
import subprocess
import sys

import numpy as np
import pytest

from fnas_jax.knowledge import history
from fnas_jax.spaces import categorical

NAN = float("nan")


def run(id_="a", space="cells", task="tabular/x"):
    return history.Run(id_, space, task, 150, 7, {"jax": "1"})


def row(position, decisions=(0, 1), trained=True, ok=True, accuracy=0.5):
    return history.Row(position, decisions, trained, ok, accuracy, 0.4, NAN, 2.0, NAN, 1.5)


def count(connection, run_id=None):
    """Measured rows, of one run or of all."""
    query = "SELECT sum(trained) FROM evaluations WHERE ?1 IS NULL OR run = ?1"
    return connection.execute(query, (run_id,)).fetchone()[0]


@pytest.fixture
def store(tmp_path):
    with contextlib.closing(history.open_(tmp_path)) as connection:
        yield connection


def test_rows_come_back_as_arrays(store):
    history.record(store, run(), 0, [row(0, (0, 1)), row(2, (3, 4), ok=False, accuracy=0.0)])
    history.record(store, run(), 1, [row(0, np.array([5, 6], np.int32), accuracy=np.float32(0.25))])
    found = history.rows(store, "cells")
    np.testing.assert_array_equal(found.decisions, [[0, 1], [3, 4], [5, 6]])
    assert found.decisions.dtype == np.int32
    np.testing.assert_array_equal(found.ok, [True, False, True])
    np.testing.assert_array_equal(found.accuracy, [0.5, 0.0, 0.25])
    np.testing.assert_array_equal(found.latency_ms, [NAN] * 3)
    np.testing.assert_array_equal(found.mflops, [2.0] * 3)
    assert list(found.run) == ["a"] * 3


def test_rows_are_chosen_by_space_task_run_and_kind(store):
    history.record(store, run("a", task="t1"), 0, [row(0), row(1, trained=False)])
    history.record(store, run("b", task="t2"), 0, [row(0, (1, 1))])
    history.record(store, run("c", space="other"), 0, [row(0, (1, 2, 3))])
    assert len(history.rows(store, "cells").ok) == 2
    assert len(history.rows(store, "cells", trained=None).ok) == 3
    assert len(history.rows(store, "cells", trained=False).ok) == 1
    assert history.rows(store, "cells", "t2").decisions.tolist() == [[1, 1]]
    assert list(history.rows(store, "cells", run_id="a", trained=None).task) == ["t1", "t1"]
    assert history.rows(store, "cells", "absent").decisions.shape == (0, 0)
    assert history.rows(store, "other").decisions.shape == (1, 3)


SPACE = categorical.make((4, 4))


def filled(store, space="cells", decisions=(0, 1), count=history.MIN_ROWS):
    """`count` measured rows of task t1, one of t2, one predicted, one failed."""
    history.record(store, run("a", space, "t1"), 0, [row(i, decisions) for i in range(count)])
    history.record(store, run("b", space, "t2"), 0, [row(0, (3, 3))])
    history.record(store, run("c", space, "t1"), 0, [row(0, trained=False), row(1, ok=False)])


def test_source_rows_are_the_measured_ones_of_other_tasks_that_fit(store):
    space = SPACE._replace(name="cells")
    filled(store)
    history.record(store, run("d", task="t1"), 0, [row(0, (4, 0)), row(1, (-1, 0))])
    found = history.source_rows(store, space, "t2")
    assert found.decisions.tolist() == [[0, 1]] * history.MIN_ROWS
    assert set(found.task) == {"t1"} and found.ok.all() and found.trained.all()
    assert len(history.source_rows(store, space, "new").ok) == history.MIN_ROWS + 1
    assert history.source_rows(store, space, "t1") is None  # one row teaches nothing
    assert history.source_rows(store, space, "t2", until=0.0) is None


@pytest.mark.parametrize("cardinalities", [(4, 4, 4), (4, 1)])
def test_source_rows_of_another_space_of_the_same_name_are_left_out(store, cardinalities):
    filled(store)
    assert (
        history.source_rows(store, categorical.make(cardinalities)._replace(name="cells"), "t2")
        is None
    )


def test_source_rows_are_of_the_spaces_number_of_decisions(store):
    filled(store)
    more = [row(i, (0, 1, 2)) for i in range(history.MIN_ROWS)]
    history.record(store, run("d", task="t1"), 0, more)
    for length, arch in ((2, [0, 1]), (3, [0, 1, 2])):
        space = categorical.make((4,) * length)._replace(name="cells")
        found = history.source_rows(store, space, "t2")
        assert found.decisions.tolist() == [arch] * history.MIN_ROWS
    space = categorical.make((4,) * 4)._replace(name="cells")
    assert history.source_rows(store, space, "t2") is None


def test_trim_drops_one_runs_rows_from_an_iteration_on(store):
    for iteration in range(4):
        history.record(store, run("a"), iteration, [row(0)])
        history.record(store, run("b"), iteration, [row(0)])
    history.trim(store, "a", 2)
    assert count(store, "a") == 2 and count(store, "b") == 4


def test_recording_an_iteration_again_replaces_it(store):
    history.record(store, run(), 0, [row(0, accuracy=0.1)])
    history.record(store, run(), 0, [row(0, accuracy=0.2)])
    assert history.rows(store, "cells").accuracy.tolist() == [0.2]


def test_a_failed_record_leaves_nothing_behind(store):
    with pytest.raises(AttributeError):
        history.record(store, run(), 0, [row(0), None])
    bad = row(1)._replace(decisions=[2**70])  # fine as JSON
    history.record(store, run(), 0, [bad])
    with pytest.raises(Exception, match="NOT NULL"):
        history.record(store, run()._replace(space=None), 1, [row(0), row(1)])
    assert count(store) == 1


WRITER = """
import sys
from fnas_jax.knowledge import history
from fnas_jax.spaces import categorical
connection = history.open_(sys.argv[1])
run = history.Run(sys.argv[2], "cells", "t", 0, 0, {})
nan = float("nan")
for iteration in range(40):
    rows = [history.Row(i, [i], True, True, 0.5, 0.5, nan, nan, nan, 0.0) for i in range(5)]
    history.record(connection, run, iteration, rows)
    if iteration % 10 == 9:
        history.trim(connection, run.id, iteration)
"""


def test_processes_share_a_store(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), name]) for name in "abc"
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    with contextlib.closing(history.open_(tmp_path)) as connection:
        for name in "abc":
            # Each run's last row set was trimmed; of every ten iterations only the tenth was.
            assert count(connection, name) == 36 * 5
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_that_is_no_database_is_an_os_error(tmp_path):
    (tmp_path / "history.sqlite").write_text("not a database " * 1000)
    with pytest.raises(OSError, match=r"history\.sqlite"):
        history.open_(tmp_path)


def test_samples_of_images_come_back_as_they_were(tmp_path):
    with contextlib.closing(history.open_(tmp_path)) as connection:
        images = np.random.default_rng(0).integers(0, 255, (2, 3, 4, 5, 1)).astype(np.uint8)
        history.record_images(connection, "images/a", np.zeros((1, 1, 2, 2, 3), np.uint8))
        history.record_images(connection, "images/a", images)
        found = history.task_images(connection)
        assert list(found) == ["images/a"]
        np.testing.assert_array_equal(found["images/a"], images)

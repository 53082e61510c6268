import contextlib
import subprocess
import sys

import numpy as np
import pytest

from fnas_jax.core import identity
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, task_data
from fnas_jax.knowledge import store as store_lib
from fnas_jax.spaces import categorical

NAN = float("nan")
SPACE = categorical.make((4, 4), "cells")


def run(id_="a", space="cells", task="tabular/x"):
    return history.Run(id_, space, task, 150, 7, {"jax": "1"})


def row(position, decisions=(0, 1), trained=True, ok=True, accuracy=0.5):
    return history.Row(position, decisions, trained, ok, accuracy, 0.4, NAN, 2.0, NAN, 1.5)


def count(connection, run_id=None):
    """Measured rows, of one run or of all."""
    query = "SELECT sum(trained) FROM evaluations WHERE :run IS NULL OR run = :run"
    return connection.execute(query, {"run": run_id}).fetchone()[0]


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


def test_who_was_stopped_early_is_known_and_rows_of_before_were_not(store):
    history.record(store, run(), 0, [row(0), row(1)._replace(stopped=38)])
    assert history.rows(store, "cells").stopped.tolist() == [0, 38]
    kinds = "SELECT typeof(stopped) FROM evaluations ORDER BY position"
    assert [kind for (kind,) in store.execute(kinds)] == ["null", "integer"]


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


def test_rows_of_a_space_are_known_by_all_that_describes_it(store):
    """Two spaces of one name, and rows of earlier versions that say only the name."""
    two, three = (categorical.make((4,) * n, "cells") for n in (2, 3))
    renamed = categorical.make((4, 4), "cells", ("x", "y"))
    for id_, space, archs in (
        ("a", two, [(0, 1), (2, 3)]),
        ("b", three, [(0, 1, 2)]),
        ("c", renamed, [(3, 3)]),
    ):
        known = run(id_)._replace(space_identity=space.identity)
        history.record(store, known, 0, [row(i, arch) for i, arch in enumerate(archs)])
    history.record(store, run("d"), 0, [row(0, (1, 1)), row(1, (4, 0)), row(2, (1, 1, 1))])
    found = history.rows(store, two)
    assert found.decisions.tolist() == [[0, 1], [2, 3], [1, 1]]
    assert found.known.tolist() == [True, True, False]
    assert history.rows(store, three).decisions.tolist() == [[0, 1, 2], [1, 1, 1]]
    assert history.rows(store, renamed).decisions.tolist() == [[3, 3], [1, 1]]
    assert history.rows(store, categorical.make((5,), "cells")).decisions.shape == (0, 0)


def test_a_name_that_several_spaces_have_is_refused_in_a_sentence(store):
    history.record(store, run(), 0, [row(0, (0, 1)), row(1, (0, 1, 2))])
    with pytest.raises(UserError, match=r"several spaces named 'cells', with 2, 3 decisions"):
        history.rows(store, "cells")


def test_rows_say_their_protocol_and_steps_and_groups_tell_them(store):
    one, two = (identity.text({"kind": "images", "steps": n}) for n in (150, 300))
    history.record(store, run("a")._replace(protocol=one), 0, [row(0), row(1, ok=False)])
    history.record(store, run("b")._replace(protocol=two), 0, [row(0, trained=False), row(1)])
    history.record(store, run("c"), 0, [row(0)])
    found = history.rows(store, "cells")
    digests = [identity.digest(one), identity.digest(two)]
    assert found.protocol.tolist() == [digests[0], digests[0], digests[1], ""]
    assert found.steps.tolist() == [150] * 4
    told = [(g.protocol, g.settings, *g[5:]) for g in history.groups(store)]
    assert told == [
        (digests[0], one, 2, 1, 0, 1),
        (digests[1], two, 1, 0, 1, 1),
        ("", "", 1, 0, 0, 1),
    ]


def test_rows_are_in_the_order_in_which_they_were_written(store, monkeypatch):
    for moment, (id_, iteration) in enumerate([("b", 0), ("a", 0), ("b", 1), ("a", 1)]):
        monkeypatch.setattr(history.time, "time", lambda moment=moment: float(moment))
        history.record(store, run(id_), iteration, [row(0, (moment, 0)), row(1, (moment, 1))])
    found = history.rows(store, "cells")
    assert found.decisions.tolist() == [[m, p] for m in range(4) for p in range(2)]
    assert list(found.run) == ["b", "b", "a", "a"] * 2
    assert len(history.rows(store, "cells", until=1.5).ok) == 4


def test_what_a_store_holds_is_the_sum_over_its_iterations(store):
    for id_, task in (("a", "t1"), ("b", "t1"), ("c", "t2")):
        for iteration in range(3):
            rows = [row(0), row(1, ok=False), row(2, trained=False)]
            history.record(store, run(id_, task=task), iteration, rows)
    history.record(store, run("d", space="other"), 0, [row(0, trained=False)])
    numbers = [(g.task, g.measured, g.failed, g.predicted, g.runs) for g in history.groups(store)]
    assert numbers == [("t1", 12, 6, 6, 2), ("t2", 6, 3, 3, 1), ("tabular/x", 0, 0, 1, 1)]


def test_a_row_whose_values_are_none_of_their_kinds_is_told_in_a_sentence(store):
    history.record(store, run(), 0, [row(0), row(1)])
    for column, value in (
        *(("decisions", text) for text in ("[1,", b"x", f"[0, {2**31}]", "[0, 1], [0, 1]")),
        ("decisions", "[" * 100_000),
        ("accuracy", "none"),
    ):
        store.execute(f"UPDATE evaluations SET {column} = ? WHERE position = 1", (value,))
        with pytest.raises(UserError, match="a row of the history is damaged: "):
            history.rows(store, "cells")


@pytest.mark.parametrize("name", [b"accurasy", b"\xffccuracy"])
def test_columns_of_other_names_are_told_as_damage(tmp_path, name):
    with store_lib.opened(tmp_path) as connection:
        history.record(connection, run(), 0, [row(0)])
    path = tmp_path / history.FILE
    path.write_bytes(path.read_bytes().replace(b"accuracy REAL", name + b" REAL"))
    told = r"history\.sqlite(' is damaged \(no such column|: a text in it is no UTF-8|.*UTF-8)"
    with pytest.raises(UserError, match=told), store_lib.existing(tmp_path) as connection:
        history.rows(connection, "cells")


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("evaluations SET task = CAST(x'ff' AS TEXT)", lambda c: history.rows(c, "cells")),
        ("evaluations SET task = CAST(x'ff' AS TEXT)", history.groups),
        ("evaluations SET task = x'ff'", history.groups),
        ("evaluations SET space_key = NULL, decisions = '[0,'", lambda c: history.rows(c, SPACE)),
        ("descriptions SET text = replace(text, '4', '5')", lambda c: history.identity_of(c, "a")),
        ("descriptions SET text = replace(text, 'i', 'j')", history.groups),
        ("descriptions SET text = x'ff'", history.descriptions),
        ("tasks SET statistics = '{\"a\": '", task_data.task_statistics),
        ("tasks SET statistics = '[1]'", task_data.task_statistics),
        ("samples SET shape = '[1, 1, 2, 2, 2]'", task_data.task_images),
        ("samples SET shape = '[1, 1, -2, -2, 3]'", task_data.task_images),
        ("samples SET shape = '[]'", task_data.task_images),
        ("samples SET images = x'00'", task_data.task_images),
    ],
)
def test_texts_that_are_others_are_told_as_damage(tmp_path, change, read):
    known = run()._replace(space_identity=SPACE.identity, protocol='{"kind":"images"}')
    with store_lib.opened(tmp_path) as connection:
        history.record(connection, known, 0, [row(0)])
        task_data.record_task(connection, "a", {"images": 1.0})
        task_data.record_images(connection, "a", np.zeros((1, 1, 2, 2, 3), np.uint8))
        read(connection)
        connection.execute(f"UPDATE {change}")
    damaged = r"history\.sqlite' is damaged \(.*put a copy of before in its place"
    with pytest.raises(UserError, match=damaged), store_lib.existing(tmp_path) as connection:
        read(connection)


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
from fnas_jax.core import identity
from fnas_jax.core.types import UserError
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
        task_data.record_images(connection, "images/a", np.zeros((1, 1, 2, 2, 3), np.uint8))
        task_data.record_images(connection, "images/a", images)
        found = task_data.task_images(connection)
        assert list(found) == ["images/a"]
        np.testing.assert_array_equal(found["images/a"], images)

"""Searches that know all that there is to ask for end, and say so."""

import json

import pytest

import fnas_jax
from fnas_jax import main as command
from fnas_jax import outcome
from fnas_jax.core import measure as measures
from fnas_jax.tasks import remaining

QUICK = [
    "--config.search.batch=4",
    "--config.jax.cache_dir=",
    "--config.log.tensorboard=False",
    "--config.evolution.population=8",
    "--config.evolution.sample=3",
    "--config.bananas.steps=10",
    "--config.ppo.hidden=8",
    "--config.uac.warmup=4",
    "--config.aeb.capacity=32",
    "--config.fnas.imagination=1",
]


def search(folder, text, *more):
    (folder / "t.csv").write_text(text)
    argv = [f"--workdir={folder / 'w'}", f"--config.task.name=tabular/{folder}/t.csv", *QUICK]
    code = command.main([*argv, *more])
    path = folder / "w" / "result.json"
    return code, json.loads(path.read_text()) if path.exists() else None


SMALL = "decision_0,decision_1,acc\n" + "".join(
    f"{a},{b},{(a + b) / 5}\n" for a in range(3) for b in range(3) if (a, b) != (1, 2)
)

# tests/methods/test_existing.py has all methods ask for all that there is, and for nothing else.
RARELY = ("evolution", "local", "bananas", "tpe", "tnas")


@pytest.mark.parametrize(
    "method",
    [
        "random",
        "gp",
        *(pytest.param(m, marks=pytest.mark.slow) for m in RARELY),
    ],
)
def test_a_table_that_is_used_up_ends_the_search(tmp_path, capsys, method):
    code, result = search(
        tmp_path, SMALL, f"--config.method.name={method}", "--config.search.budget=500"
    )
    told = capsys.readouterr().err.splitlines()
    assert code == 0 and result["best"]["arch"] == [2, 2]
    assert (result["counts"]["trained"], result["counts"]["failed"]) == (8, 0)
    assert result["iterations"] <= 10
    first, second = told[:2]
    assert first == "maximising acc of 8 rows, decisions decision_0, decision_1"
    assert second == "the table holds 8 of 9 combinations: no others are asked for"
    assert any("all networks that can be evaluated are known, 8 of them trained" in t for t in told)


@pytest.mark.parametrize("method", ["ppo", pytest.param("fnas", marks=pytest.mark.slow)])
def test_methods_that_repeat_themselves_end_by_what_there_is(tmp_path, capsys, method):
    code, result = search(
        tmp_path, SMALL, f"--config.method.name={method}", "--config.search.budget=500"
    )
    told = capsys.readouterr().err.splitlines()
    assert code == 0 and result["counts"]["failed"] == 0
    assert result["iterations"] <= 20 * 8 / 4  # of 20 * 500 proposals, which no one waits for
    assert any("the search ends here, below search.budget (500)" in t for t in told)
    assert sum("none new" in t for t in told) <= 20


@pytest.mark.parametrize(
    "method",
    [
        "random",
        "gp",
        *(pytest.param(m, marks=pytest.mark.slow) for m in (*RARELY, "ppo", "fnas")),
    ],
)
def test_a_table_of_one_row_is_searched(tmp_path, capsys, method):
    more = ("--config.search.budget=3", f"--config.method.name={method}")
    code, result = search(tmp_path, "decision_0,acc\n0,0.5\n", *more)
    assert code == 0 and result["counts"]["trained"] == 1
    assert "rank 1 of the 1 row of the table" in capsys.readouterr().out


def test_a_table_without_any_result_is_a_failure(tmp_path, capsys):
    text = "decision_0,acc\n0,nan\n1,nan\n"
    code, result = search(tmp_path, text, "--config.method.name=random")
    assert code == 1 and result["best"] is None and result["counts"]["failed"] == 2
    told = capsys.readouterr().err
    assert "error: no architecture gave a result: 2 were trained, and 2 failed" in told
    assert "no acc in 2 of 2 rows (line 2: 'nan', line 3: 'nan'): trainings" in told
    assert "iteration 1: 2 new, all failed, no result yet" in told


def test_iterations_whose_networks_all_failed_are_shown(tmp_path, capsys):
    rows = [i for i in range(25) if i != 12]  # a gap, so that none is asked for twice
    text = "decision_0,acc\n" + "".join(f"{i},{'nan' if i else 0.5}\n" for i in rows)
    code, _ = search(tmp_path, text, "--config.method.name=random")
    shown = [t for t in capsys.readouterr().err.splitlines() if "iteration " in t]
    assert code == 0 and len(shown) == 6  # of 4 networks each, all new
    assert sum("4 new, all failed" in t for t in shown) == 5


def test_the_first_line_says_what_is_searched_for_even_where_the_method_refuses(tmp_path, capsys):
    code, _ = search(tmp_path, SMALL, "--config.method.name=spos")
    told = capsys.readouterr().err.splitlines()
    assert code == 2 and told[-1].startswith("error: ")
    assert told[0] == "maximising acc of 8 rows, decisions decision_0, decision_1"
    assert told[1].startswith("the table holds 8 of 9 combinations")


def test_what_is_minimised_is_told_in_its_own_unit(tmp_path, capsys):
    text = "decision_0,loss\n0,3\n1,1\n2,2\n"
    more = ("--config.method.name=random", "--config.task.direction=minimize")
    code, result = search(tmp_path, text, *more)
    said = capsys.readouterr()
    assert said.err.splitlines()[0] == "minimising loss of 3 rows, decisions decision_0"
    assert code == 0 and result["best"]["value"] == 1 and result["winner"]["rank"] == 1
    assert "search loss 1, reward 0.6667\n" in said.out and "rank 1 of the 3 rows" in said.out
    assert result["metric"]["kind"] == "error" and result["metric"]["scale"] == 2
    # An unfinished run, which has run.json only, says the same.
    assert outcome.measure(tmp_path / "w") == measures.of_result(result)


def test_small_spaces_of_functions_end_too(tmp_path):
    space = fnas_jax.categorical({"a": [1, 2, 3], "b": ["x", "y"]})
    task = fnas_jax.from_function(space, lambda d: d["a"] / 3, name="f")
    options = {"method": "random", "log.tensorboard": False, "jax.cache_dir": ""}
    found = fnas_jax.search(task=task, budget=400, workdir=tmp_path / "w", **options)
    assert found.counts["trained"] == 6


def test_large_spaces_are_not_counted():
    assert remaining.of(fnas_jax.categorical({f"d{i}": [1, 2] for i in range(15)})) is None

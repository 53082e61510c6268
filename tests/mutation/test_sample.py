"""What `make mutants` would change, and what it says of the tests."""

import ast
import pathlib

import pytest

from tests.mutation import targets
from tests.mutation.harmless import HARMLESS

SOURCE = '''
def f(x: int | None, n: int = 3) -> int | None:
    """No number of text like 3 is changed."""
    if TYPE_CHECKING:
        y = 7
    for i in range(n):
        x = jnp.where(x > i, jnp.maximum(x, i), -x)
    y = max(x.sum(), sum(y))
    return x & y
'''
MODULE = pathlib.Path("fnas_jax/f.py")


def test_every_line_of_the_map_names_what_there_is():
    package, tests = targets.ROOT / "fnas_jax", targets.ROOT / "tests"
    for name, paths in targets.TESTS.items():
        assert (package / name).exists(), name
        assert all((tests / path).exists() for path in paths.split()), name
    for module, line in HARMLESS:
        text = (targets.ROOT / module).read_text()
        assert line not in text, f"{line} of {module} is no change"


def test_a_module_has_the_first_line_that_fits_and_numbers_of_configurations_none():
    inside = lambda name: targets.tests_of(pathlib.Path("fnas_jax") / name)  # noqa: E731
    assert inside("tasks/tabular.py") == ["tests/tasks/test_tabular.py"]
    assert inside("tasks/readers/npz.py") == ["tests/tasks/readers"]
    assert inside("tasks/pool_access.py") == ["tests/tasks/test_children_evaluator.py"]
    assert inside("methods/fnas/config.py") == inside("loop.py") == []
    assert pathlib.Path("fnas_jax/scan.py") in targets.modules()


def found():
    sample = pytest.importorskip("tests.mutation.sample", exc_type=ImportError)
    return sample, sample.mutants(MODULE, SOURCE)


def test_mutants_are_changes_of_what_runs():
    sample, every = found()
    changed = {sample.mutated(mutant, SOURCE) for mutant in every}
    assert len(changed) == len(every) and SOURCE not in changed
    for text in changed:
        ast.parse(text)
        assert "int | None, n" in text and "-> int | None" in text
        assert "y = 7" in text and "like 3" in text
    lines = {line.strip() for text in changed for line in text.splitlines()}
    assert "x = jnp.where(x > i, -x, jnp.maximum(x, i))" in {" ".join(x.split()) for x in lines}
    assert "x = jnp.where(x > i, jnp.minimum(x, i), -x)" in lines
    assert "x = jnp.where(x > i, jnp.maximum(x, i), x)" in lines
    assert "return x | y" in lines
    assert {"y = min(x.sum(), sum(y))", "y = max(x.mean(), sum(y))"} <= lines
    assert "y = max(x.sum(), mean(y))" not in lines


def test_a_sample_is_fixed_has_a_place_once_and_stays_where_other_lines_change():
    sample, every = found()
    source, name = {str(MODULE): SOURCE}, str(MODULE)
    drawn = sample.sample(every, source, 4, 0)
    assert drawn[:2] == sample.sample(every, source, 2, 0)
    assert drawn == sample.sample(every[::-1], source, 4, 0) != sample.sample(every, source, 4, 1)
    assert len({mutant.place for mutant in drawn}) == 4
    longer = "\n\n" + SOURCE
    again = sample.sample(sample.mutants(MODULE, longer), {name: longer}, 4, 0)
    assert [m._replace(line=m.line - 2) for m in again] == drawn


def test_the_score_counts_what_was_noticed(capsys):
    command = pytest.importorskip("tests.mutation.__main__", exc_type=ImportError)
    record = {"module": "a.py", "operator": "AddNot", "line": 3, "change": ["-a", "+b"]}
    outcomes = [command.KILLED] * 6 + [command.TIMED_OUT, command.SURVIVED, command.KNOWN]
    assert command.report([record | {"outcome": outcome} for outcome in outcomes]) == 7 / 8
    told = capsys.readouterr().out
    assert "survived: a.py:3 AddNot\n  -a\n  +b" in told and "87.5% of 8 mutants" in told
    (module, line), _ = next(iter(command.HARMLESS.items()))
    assert command.excused(module, "+    " + line) and not command.excused(module, "-    " + line)
    assert not command.excused("a.py", "+" + line)

"""Changes the code in small ways and counts which of them the tests notice: `make mutants`.

    python -m tests.mutation [--count N] [--seed N] [--only TEXT] [--json FILE] [--again FILE] ..

It works on a copy of the tree, so that nothing is left changed when it is killed; what it has found
until then is a smaller sample. Exits with 1 where less than 85% is noticed, with 2 where the tests
fail on the code as it is.
"""

import argparse
import collections
import difflib
import json
import os
import pathlib
import shlex
import shutil
import sys
import time
import xml.etree.ElementTree

from cosmic_ray.testing import run_tests
from cosmic_ray.util import restore_contents
from cosmic_ray.work_item import TestOutcome

from tests import conftest
from tests.mutation import targets
from tests.mutation.harmless import HARMLESS
from tests.mutation.sample import Mutant, mutants, mutated, sample

ENOUGH = 0.85  # share of mutants that tests have to notice
COPY = targets.ROOT / ".mutants" / f"tree-{os.getpid()}"  # two may run side by side
COPIED = ("fnas_jax", "tests", "experiments", "pyproject.toml")
KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"
KNOWN = "harmless"  # survived, and `harmless.py` says why


def copy_tree() -> None:
    """A fresh copy of what tests need."""
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for name in COPIED:
        source = targets.ROOT / name
        if source.is_dir():
            shutil.copytree(source, COPY / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, COPY / name)


def prepare_environment() -> None:
    """Tests of the copy, with programs of XLA kept from one mutant to the next, small ones too."""
    os.environ["PYTHONPATH"] = str(COPY)
    os.environ["XLA_FLAGS"] = conftest.with_quick(os.environ.get("XLA_FLAGS", ""))
    os.environ.setdefault("FNAS_DATA", str(targets.ROOT.parent / "shared" / "data"))
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(targets.ROOT / ".mutants" / "jax")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.chdir(COPY)


def run(tests: list[str], limit: float, *more: str) -> tuple[str, float, str]:
    """(outcome, seconds, output) of `tests` on the copy as it is."""
    options = "-n 0 -x -q --no-header -p no:cacheprovider -m 'not slow'"
    command = f"{shlex.quote(sys.executable)} -m pytest {options} {shlex.join([*more, *tests])}"
    start = time.monotonic()
    outcome, output = run_tests(command, limit)
    seconds = time.monotonic() - start
    if outcome == TestOutcome.INCOMPETENT:
        raise RuntimeError(f"tests could not be started: {output}")
    if outcome == TestOutcome.SURVIVED:
        return SURVIVED, seconds, output
    return (TIMED_OUT if output == "timeout" else KILLED), seconds, output


def baseline(wanted: list[Mutant]) -> dict[str, float]:
    """Seconds that each module's tests may take: four times what they take now, and a minute.

    All of them once in one process, which also compiles what most mutants share.
    """
    tests = {m.module: targets.tests_of(pathlib.Path(m.module)) for m in wanted}
    file = COPY / "durations.xml"
    needed = sorted(set().union(*tests.values()))
    outcome, seconds, output = run(needed, 3600, f"--junitxml={file}")
    if outcome != SURVIVED:
        print(output)
        print("mutants: the tests fail without a change", file=sys.stderr)
        raise SystemExit(2)
    print(f"the tests pass on the code as it is, in {seconds:.0f} s", flush=True)
    took = collections.Counter()
    for case in xml.etree.ElementTree.parse(file).iter("testcase"):
        took[case.get("classname").replace(".", "/") + ".py"] += float(case.get("time"))
    return {
        module: 60 + 4 * sum(t for name, t in took.items() if name.startswith(tuple(paths)))
        for module, paths in tests.items()
    }


def examine(mutant: Mutant, limit: float) -> dict:
    """What becomes of a mutant: a record for the report."""
    path = COPY / mutant.module
    with restore_contents(path):
        before = path.read_text()
        after = mutated(mutant, before)
        path.write_text(after)
        outcome, seconds, output = run(targets.tests_of(pathlib.Path(mutant.module)), limit)
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    changed = [line for line in lines if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    if outcome == SURVIVED and any(excused(mutant.module, line) for line in changed):
        outcome = KNOWN
    ends = [line for line in output.splitlines() if line.startswith(("FAILED ", "ERROR "))]
    noticed = [line.split()[1] for line in ends]
    record = mutant._asdict() | {"outcome": outcome, "seconds": round(seconds, 1)}
    return record | {"change": changed, "noticed": noticed}


def excused(module: str, line: str) -> bool:
    """The `line` of a difference is one that `harmless.py` names."""
    return line[0] == "+" and (module, line[1:].strip()) in HARMLESS


def report(records: list[dict]) -> float:
    """Prints the table and the survivors; the share that was noticed of what is not harmless."""
    outcomes = (KILLED, SURVIVED, TIMED_OUT, KNOWN)
    counts = collections.defaultdict(collections.Counter)
    for record in records:
        for name in (record["module"], "all"):
            counts[name][record["outcome"]] += 1
    print(f"\n{'module':<48}" + "".join(f"{outcome:>10}" for outcome in outcomes))
    total = counts.pop("all", collections.Counter())
    for name, count in [*sorted(counts.items()), ("all", total)]:
        print(f"{name:<48}" + "".join(f"{count[outcome]:>10}" for outcome in outcomes))
    for record in records:
        if record["outcome"] == SURVIVED:
            print(f"\nsurvived: {record['module']}:{record['line']} {record['operator']}")
            print("\n".join(f"  {line}" for line in record["change"]))
    counted = total.total() - total[KNOWN]
    score = 1 - total[SURVIVED] / max(counted, 1)
    print(f"\n{score:.1%} of {counted} mutants were noticed ({ENOUGH:.0%} are enough)")
    return score


def chosen(options: argparse.Namespace) -> list[Mutant]:
    """The mutants that are asked for: a sample, or the survivors of an earlier report."""
    if options.again:
        found = json.loads(pathlib.Path(options.again).read_text())
        survivors = [r for r in found if r["outcome"] == SURVIVED]
        return [Mutant(*(r[name] for name in Mutant._fields)) for r in survivors]
    modules = [m for m in targets.modules() if options.only in str(m)]
    sources = {str(m): (targets.ROOT / m).read_text() for m in modules}
    every = [mutant for m in modules for mutant in mutants(m, sources[str(m)])]
    print(f"{len(every)} mutants of {len(modules)} modules; {options.count} places are drawn")
    return sample(every, sources, options.count, options.seed)


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser("python -m tests.mutation", description=__doc__)
    parser.add_argument("--count", type=int, default=100, help="mutants in the sample")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--only", default="", help="modules whose path has this text")
    parser.add_argument("--json", help="file to which the results are written")
    parser.add_argument("--again", help="such a file, whose survivors are tried once more")
    parser.add_argument(
        "--limit",
        type=float,
        help="seconds for the tests of a mutant; saves running them on the code as it is",
    )
    return parser.parse_args(arguments)


def examine_all(wanted: list[Mutant], limit: float | None, out: pathlib.Path | None) -> list[dict]:
    """A record of each, which `out` holds as soon as it is there."""
    limits = dict.fromkeys((m.module for m in wanted), limit) if limit else baseline(wanted)
    records = []
    for i, mutant in enumerate(wanted, 1):
        records.append(record := examine(mutant, limits[mutant.module]))
        place = f"{mutant.module}:{mutant.line} {mutant.operator}"
        print(f"[{i}/{len(wanted)}] {record['outcome']:<9} {place}", flush=True)
        if out:
            out.write_text(json.dumps(records, indent=1) + "\n")
    return records


def main(arguments: list[str]) -> int:
    """The command; its exit code."""
    options = parse(arguments)
    wanted, out = chosen(options), options.json and pathlib.Path(options.json).resolve()
    copy_tree()
    try:
        prepare_environment()
        records = examine_all(wanted, options.limit, out)
    finally:
        os.chdir(targets.ROOT)
        shutil.rmtree(COPY, ignore_errors=True)
    return 0 if report(sorted(records, key=lambda r: (r["module"], r["line"]))) >= ENOUGH else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

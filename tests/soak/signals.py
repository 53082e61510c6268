"""Searches that are told to end at random moments: each ends as promised, and goes on the same.

python -m tests.soak.signals
"""

import collections
import itertools
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
PROMISED = "ended as promised, went on the same"
FINISHED = "finished before"
EARLY = "before the interpreter had a handler"
# Runs its arguments, which heed signals: what is started in the background, or by nohup, does not.
HEED = """import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.argv[1], sys.argv[1:])"""
SAYS = "the same command goes on from here"
TIMES = ("seconds", "resumed")  # of result.json, which differ from run to run


def table(folder: pathlib.Path) -> pathlib.Path:
    """A table of 729 networks in `folder`."""
    path, draw = folder / "table.csv", random.Random(0)
    lines = ["a,b,c,d,e,f,accuracy"]
    for choices in itertools.product("xyz", repeat=6):
        lines.append(",".join((*choices, f"{draw.uniform(0.5, 0.9):.4f}")))
    path.write_text("\n".join(lines) + "\n")
    return path


def command(folder: pathlib.Path, workdir: pathlib.Path) -> list[str]:
    """A search on the table in `folder`, with a checkpoint after each of its 75 iterations."""
    return [
        *(sys.executable, "-m", "fnas_jax.main", f"--workdir={workdir}"),
        f"--config.task.name=tabular/{folder / 'table.csv'}",
        "--config.task.decisions=a,b,c,d,e,f",
        "--config.method.name=random",
        "--config.search.budget=300",
        "--config.search.batch=4",
        "--config.log.checkpoint_seconds=0",
        f"--config.jax.cache_dir={folder / 'cache'}",
    ]


def start(folder: pathlib.Path, workdir: pathlib.Path) -> subprocess.Popen:
    """The process of `command`."""
    return subprocess.Popen(
        [sys.executable, "-c", HEED, *command(folder, workdir)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def whole(folder: pathlib.Path) -> tuple[object, float]:
    """(what a search finds that nobody disturbs, the seconds that it takes)."""
    table(folder)
    took = []
    for name in ("first", "second", "whole"):  # the first one compiles
        begun = time.monotonic()
        process = start(folder, folder / name)
        _, said = process.communicate(timeout=600)
        assert process.returncode == 0, said
        took.append(time.monotonic() - begun)
    return found(folder / "whole"), min(took)


def found(workdir: pathlib.Path) -> object:
    """What a search has left, but for its times: result.json and the rewards of each step."""
    result = json.loads((workdir / "result.json").read_text())
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    steps = [{n: v for n, v in line.items() if not n.startswith("seconds")} for line in lines]
    return {name: value for name, value in result.items() if name not in TIMES}, steps


def gone_on(folder: pathlib.Path, workdir: pathlib.Path, expected: object) -> str:
    """ "" where the same command finds what the undisturbed search did; else what is wrong."""
    process = start(folder, workdir)
    _, said = process.communicate(timeout=600)
    if process.returncode != 0:
        return f"does not go on: {said.strip().splitlines()[-1:]}"
    return "" if found(workdir) == expected else "goes on, and finds something else"


def told(
    folder: pathlib.Path,
    workdir: pathlib.Path,
    kind: signal.Signals,
    moment: float,
    expected: object,
) -> str:
    """How a search ends that is sent `kind` after `moment` seconds."""
    process = start(folder, workdir)
    time.sleep(moment)
    process.send_signal(kind)
    sent = time.monotonic()
    _, said = process.communicate(timeout=600)
    code, lines = process.returncode, said.strip().splitlines()
    if code == 0:
        return FINISHED if time.monotonic() - sent < 0.5 else "swallowed"
    if not workdir.exists() and SAYS not in said and "jax" not in said:
        return EARLY
    if "Traceback" in said:
        return f"traceback of {lines[-1][:80]}"
    if code != CODES[kind] or not lines or SAYS not in lines[-1]:
        return f"exit {code}: {lines[-1:]}"
    return gone_on(folder, workdir, expected) or PROMISED


def cases(
    counts: tuple[tuple[signal.Signals, int], ...] = (
        (signal.SIGINT, 40),
        (signal.SIGTERM, 20),
        (signal.SIGHUP, 4),
    ),
    seed: int = 0,
) -> list[tuple[str, str]]:
    """(fault, outcome) of so many signals of each kind, at moments of a whole search."""
    draw, outcomes = random.Random(seed), []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        expected, seconds = whole(folder)
        for kind, count in counts:
            for number in range(count):
                outcome = FINISHED
                while outcome == FINISHED:  # at another moment, then
                    moment = draw.uniform(0.1, seconds)
                    workdir = folder / f"{kind.name}{number}"
                    shutil.rmtree(workdir, ignore_errors=True)
                    outcome = told(folder, workdir, kind, moment, expected)
                outcomes.append((f"{kind.name} after {moment:.2f} of {seconds:.2f} s", outcome))
                print(*outcomes[-1], sep=": ", flush=True)
    return outcomes


if __name__ == "__main__":
    for (kind, outcome), count in sorted(
        collections.Counter((fault.split()[0], outcome) for fault, outcome in cases()).items()
    ):
        print(f"{count:4d}  {kind}: {outcome}")

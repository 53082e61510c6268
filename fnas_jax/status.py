"""`fnas-jax status W`: how far a search is, whether a process is at it, and what it has found."""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

from absl import flags

from fnas_jax import simulated
from fnas_jax.core import cli, exits, pace
from fnas_jax.core.types import UserError
from fnas_jax.standing import Status, left, number, read

USAGE = """Says how far the searches in one or several workdirs are, and what they have found.

  fnas-jax status runs/a [runs/b ..] [--watch]"""
CLEAR, HOME, REST, BELOW = "\x1b[2J", "\x1b[H", "\x1b[K", "\x1b[J"  # of a terminal (ECMA-48)


def state(found: Status, now: float) -> str:
    """What it is doing, in a few words."""
    if found.running:
        live = found.live or {}
        words = live.get("stage", "running")
        if "since" in live:
            words += f" for {pace.text(max(now - live['since'], 0.0))}"
        return words
    if found.result is not None:
        return "finished"
    at = f" in the stage {found.live['stage']!r}" if found.live else ""
    return f"no process is at it: the last one was killed{at}" if at else "no process is at it"


def screen(found: Status, now: float) -> str:
    """All of it, a line each."""
    if found.config is None:
        return f"{found.folder}\n  {'state':<12}{state(found, now)}; the search has not begun yet"
    config = found.config
    rows = [
        ("state", _state_row(found, now)),
        ("process", _process(found)),
        ("best", _best(found)),
        ("", found.best or ""),
        ("done", _done(found)),
        ("rate", _rate(found)),
        ("time left", _left(found, now)),
        ("simulated", _simulated(found)),
        ("failures", _failures(found)),
        ("pool", pool(found.line)),
        ("critic", critic(found.line)),
        ("checkpoint", _checkpoint(found)),
    ]
    head = f"{found.folder}: {config.method.name} on {config.task.name}"
    return "\n".join([head, *(f"  {name:<12}{text}" for name, text in rows if text)])


def one_line(found: Status, now: float) -> str:
    """The most of it, where there are several."""
    parts = [state(found, now)]
    if found.config is not None:
        parts.append(_done(found).partition(",")[0])
        parts += [text for text in (_best(found), _left(found, now)) if text]
    return f"{found.folder}: {'; '.join(parts)}"


def _state_row(found: Status, now: float) -> str:
    began = "" if found.began is None else time.strftime("%F %T", time.localtime(found.began))
    return f"{state(found, now)}{f', begun {began}' if began else ''}"


def _process(found: Status) -> str:
    if not found.running:
        return ""
    live = found.live
    return "holds the workdir" if live is None else f"{live['pid']} on {live['host']}"


def _best(found: Status) -> str:
    if found.result is not None:
        best, winner = found.result["best"], found.result["winner"] or {}
        if best is None:
            return "no network gave a result"
        final = winner.get("accuracy")
        tail = "" if final is None else f", final {found.measure.text(final)}"
        return f"{found.measure.name} {found.measure.text(best['accuracy'])}{tail}"
    accuracy, reward = (number(found.line, f"best_{name}") for name in ("accuracy", "reward"))
    if accuracy is None:
        return "nothing yet" if reward is None else f"reward {reward:.4f}"
    paid = "" if reward in (accuracy, None) else f", reward {reward:.4f}"
    return f"{found.measure.name} {found.measure.text(accuracy)}{paid}"


def _done(found: Status) -> str:
    counts = {name: number(found.line, name) or 0 for name in ("trained", "predicted", "proposed")}
    iteration = number(found.line, "iteration")
    text = f"{counts['trained']} of {found.config.search.budget} evaluations"
    others = [f"{counts[n]} {n}" for n in ("predicted", "proposed") if counts[n]]
    others += [f"iteration {iteration}"] if iteration else []
    return ", ".join([text, *others])


def _rate(found: Status) -> str:
    if not math.isfinite(found.seconds_each):
        return ""
    if found.seconds_each == 0:
        return "more than can be told"
    a_minute = 60 / found.seconds_each
    return f"{a_minute:.3g} evaluations a minute, {found.seconds_each:.3g} s each"


def _left(found: Status, now: float) -> str:
    by_count, by_time = left(found, now)
    parts = [f"{pace.text(by_count)} by evaluations"] if math.isfinite(by_count) else []
    parts += [f"{pace.text(by_time)} by search.seconds"] if math.isfinite(by_time) else []
    text = ", ".join(parts)
    stage = (found.live or {}).get("stage")
    if found.running and stage not in (None, "search"):
        live = found.live or {}
        rest = live.get("left")
        known = "" if rest is None else pace.text(max(rest - max(now - live["at"], 0.0), 0.0))
        counted = live.get("total") and "done" in live
        done = f" ({live['done']} of {live['total']})" if counted else ""
        return f"{known} of {live.get('label', stage)}{done}" if known else ""
    return text


def _simulated(found: Status) -> str:
    """How long the trainings took by the task's table, and of how much; "" without times."""
    result = (found.result or {}).get(simulated.NAME)
    total = number(result or found.line, "total" if result else simulated.NAME)
    if total is None:
        return ""
    most = found.config.search.simulated_seconds
    return f"{pace.text(total)}{f' of {pace.text(most)}' if most else ''} of training by the table"


def _failures(found: Status) -> str:
    failed, trained = (number(found.line, name) for name in ("failed", "trained"))
    if not trained:
        return ""
    return f"{failed or 0} of {trained} ({100 * (failed or 0) / trained:.0f}%)"


def pool(line: Mapping[str, Any]) -> str:
    """The knowledge pool by the newest line of an iteration; "" where there is none."""
    names = ("entries", "mib", "hits", "exact")
    entries, mib, hits, exact = (number(line, f"pool/{name}") for name in names)
    if entries is None:
        return ""
    size = "" if mib is None else f", {mib:.3g} MiB"
    found = "" if hits is None else f"; {100 * hits:.0f}% of blocks found in it"
    same = "" if hits is None or exact is None else f", {100 * exact:.0f}% the very same"
    return f"{entries:.0f} blocks{size}{found}{same}"


def critic(line: Mapping[str, Any]) -> str:
    """How right predictions are by the newest line of an iteration; "" where there are none."""
    mae, coverage, tau = (number(line, name) for name in ("mae", "coverage", "tau"))
    foreign = number(line, "foreign_rows")
    parts = [f"mean error {mae:.3g} in rewards"] if mae is not None else []
    parts += [f"{100 * coverage:.0f}% within its uncertainty"] if coverage is not None else []
    parts += [f"Kendall's tau {tau:.2f}"] if tau is not None else []
    parts += [f"{foreign:.0f} rows of other tasks"] if foreign else []
    return ", ".join(parts)


def _checkpoint(found: Status) -> str:
    if found.checkpoint is None:
        return "" if found.result is not None else "none yet"
    number, age = found.checkpoint
    return f"{number}, {pace.text(age)} ago"


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    cli.define_workdir(values)
    flags.DEFINE_boolean(
        "watch", False, "shows it again and again, until Ctrl-C or all are finished", values
    )
    flags.DEFINE_float(
        "every", 2.0, "seconds between two looks of --watch", 0.1, flag_values=values
    )


def shown(folders: Sequence[str], now: float) -> tuple[str, bool]:
    """(what is to be seen of the searches in `folders`, whether all are finished)."""
    if len(folders) == 1:
        found = read(folders[0], now)
        return screen(found, now), found.result is not None and not found.running
    lines, over = [], True
    for folder in folders:
        try:
            found = read(folder, now)
        except UserError as error:  # the others are to be seen all the same
            lines.append(f"{folder}: {error}")
            continue
        lines.append(one_line(found, now))
        over &= found.result is not None and not found.running
    return "\n".join(lines), over


def drawn(text: str, width: int, height: int) -> str:
    """`text` for a terminal of this size, in the place of what was drawn there before."""
    lines = [line[: width - 1] for line in text.splitlines()[: height - 1]]
    return HOME + "".join(f"{line}{REST}\n" for line in lines) + BELOW


def watch(folders: Sequence[str], every: float) -> None:
    """Shows the searches in `folders` until all are finished, or Ctrl-C."""
    terminal, before = sys.stdout.isatty(), CLEAR
    try:
        while True:
            text, over = shown(folders, time.time())
            if terminal:
                frame = drawn(text, *shutil.get_terminal_size())
                print(f"{before}{frame}", end="", flush=True)
                before = ""
            else:
                print(text, flush=True)
            if over:
                return
            time.sleep(every)
    except KeyboardInterrupt as error:
        if signals.code(error) != 130:
            raise  # of Ctrl-C alone it is the usual end


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        given = sys.argv[1:] if argv is None else argv
        values, folders = cli.parse_places(given, define, USAGE)
        folders += [values.workdir] if values.workdir else []
        if not folders:
            raise UserError("no workdir is given; --help shows how to call this command")
        if values.watch:
            watch(folders, values.every)
        else:
            print(shown(folders, time.time())[0])

    return exits.run_command(body)


if __name__ == "__main__":
    signals.leave(command())

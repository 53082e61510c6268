"""`fnas-jax COMMAND ..` and `python -m fnas_jax COMMAND ..`: every command under one name."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from fnas_jax.core import signals
from fnas_jax.core.nearest import nearest

# Module and function of each command, and what it does in a line.
COMMANDS = {
    "search": ("fnas_jax.main:main", "searches a network, or goes on with a search"),
    "status": ("fnas_jax.status:command", "says how far searches are"),
    "trials": ("fnas_jax.trials:command", "lists what a search has tried"),
    "store": ("fnas_jax.stores:command", "merges knowledge stores, imports earlier results"),
    "report": ("fnas_jax.report:command", "writes a page about a search"),
    "retrain": ("fnas_jax.retrain:command", "trains the winner of a search again"),
    "predict": ("fnas_jax.predict:command", "says what images are, by the network found"),
    "export": ("fnas_jax.export:command", "writes the network found in other programs' formats"),
    "latency": ("fnas_jax.latency:command", "times what networks consist of, or a network"),
    "meta-train": ("fnas_jax.meta_train:main", "learns a kernel from earlier searches, for tnas"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that `argv` (without the program's name) begins with; its exit code.

    Arguments that begin with a flag of a search are those of `search`.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0] in ("-h", "-help", "--help", "help"):
        print(usage())
        return 0
    if not arguments:
        print(usage(), file=sys.stderr)
        return 2
    name = arguments.pop(0) if not arguments[0].startswith("-") else "search"
    if name not in COMMANDS:
        allowed = f"allowed are {', '.join(COMMANDS)}{nearest(name, COMMANDS)}"
        print(f"error: unknown command {name!r}; {allowed}", file=sys.stderr)
        return 2
    module, _, function = COMMANDS[name][0].partition(":")
    return getattr(importlib.import_module(module), function)(arguments)


def usage() -> str:
    """What `--help` prints."""
    listed = "\n".join(f"  {name:<12}{does}" for name, (_, does) in COMMANDS.items())
    return (
        f"fnas-jax COMMAND [--FLAG=VALUE ..]\n\n{listed}\n\nfnas-jax COMMAND --help has the flags."
    )


def entry() -> None:
    """The console script."""
    goes_on = sys.argv[1:2] in ([], ["search"], ["retrain"]) or sys.argv[1].startswith("-")
    signals.starting(signals.GOES_ON if goes_on else signals.AGAIN)
    signals.leave(main())


if __name__ == "__main__":
    entry()

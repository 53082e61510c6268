"""What is added to pages when the site is built: all configuration keys, and all commands."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable

from fnas_jax import __main__ as program
from fnas_jax.core import config, config_values


def configuration() -> str:
    """All keys: a table for each section."""
    sections: dict[str, list[str]] = {}
    for name in config.all_keys():
        sections.setdefault(name.rpartition(".")[0], []).append(name)
    pieces = []
    for section, names in sections.items():
        pieces.append(f"## {section or 'The run'}\n")
        pieces.append(table(("key", "default", "meaning", "allowed"), map(_row, names)))
    return "\n".join(pieces)


def _row(name: str) -> tuple[str, str, str, str]:
    key = config.all_keys()[name]
    allowed = config_values.allowed(key) or config_values.kind(key)
    return f"`{name}`", f"`{key.default!r}`", plain(key.doc), plain(allowed)


def commands() -> str:
    """What each command says of itself."""
    pieces = []
    for name, (_, does) in program.COMMANDS.items():
        pieces.append(f"## {name}\n\n{does[0].upper()}{does[1:]}.\n")
        pieces.append(f"```text\n{help_of(name)}\n```\n")
    return "\n".join(pieces)


def help_of(command: str) -> str:
    """What `fnas-jax COMMAND --help` prints, without the keys of the configuration."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = program.main([command, "--help"])
    if code:
        raise RuntimeError(f"fnas-jax {command} --help ended with {code}")
    return said.getvalue().partition("\nconfiguration (")[0].strip()


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def plain(text: str) -> str:
    """`text` so that Markdown leaves it as it is, in a cell of a table."""
    for sign in "\\`*_<|[":
        text = text.replace(sign, f"\\{sign}" if sign != "<" else "&lt;")
    return text

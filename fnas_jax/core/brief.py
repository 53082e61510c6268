"""Messages of a length that people read, whatever they quote."""

from __future__ import annotations

import re

MOST = 1000  # characters of a message
_VALUE, _HEAD, _TAIL = 200, 120, 40  # of what it quotes: at most, and what is left of more
# What stands between two quotation marks of a kind, or without a space.
_QUOTED = re.compile(rf"'[^']{{{_VALUE},}}'|\"[^\"]{{{_VALUE},}}\"|[^\s'\"]{{{_VALUE},}}")


def brief(message: str) -> str:
    """`message` as it is, or, if it is long, with the middle of what it quotes left out."""
    if len(message) <= MOST // 2:
        return message
    message = _QUOTED.sub(lambda found: _cut(found[0], _HEAD, _TAIL), message)
    return message if len(message) <= MOST else _cut(message, MOST - 350, 300)


def _cut(text: str, head: int, tail: int) -> str:
    return f"{text[:head]} .. ({len(text):,} characters) .. {text[-tail:]}"

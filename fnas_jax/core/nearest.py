"""What a wrong word may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, allowed: Iterable[str]) -> str:
    """'; did you mean X?' for the entry of `allowed` nearest to `word`, or '' if none is near."""
    scored = [(_similarity(word, entry), entry) for entry in allowed]
    best, entry = max(scored, default=(0.0, ""))
    return f"; did you mean {entry!r}?" if best > 0.6 else ""


def _similarity(a: str, b: str) -> float:
    """Of dotted names, in 0..1; the last part counts as much as the whole, or alone if b has it."""
    whole = difflib.SequenceMatcher(None, a, b).ratio()
    last = difflib.SequenceMatcher(None, a.rpartition(".")[2], b.rpartition(".")[2]).ratio()
    return max((whole + last) / 2, 0.9 * last if last > 0.8 else 0.0)

"""What a checkpoint says of the search that it is of.

A checkpoint is worth what stands beside it: the same run, configuration, space and data. So it says
which these are, and what stands beside it is compared, or written anew where it is gone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple


class About(NamedTuple):
    """The search of a checkpoint, and how far it had come."""

    run: Mapping[str, Any]  # run.json as it was
    config: Mapping[str, Any]  # {"search.budget": 64, ..}, all keys
    done: Mapping[str, float]  # `proposed` and `trained` networks, `seconds`, `lines` of metrics


def text(about: About) -> str:
    """The JSON of it."""
    return json.dumps(about._asdict(), sort_keys=True, allow_nan=False)


def parse(written: str) -> About | None:
    """What `text` has written; None for anything else, as the "" of earlier versions."""
    try:
        known = json.loads(written)
        return About(*({**known[name]} for name in About._fields))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None

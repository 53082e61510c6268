"""Runs a program in a process of its own, as those do who have an export and not this package."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence


def run(program: str, arguments: Sequence[str], environment: dict[str, str]) -> str:
    """What the Python source `program` prints, given `arguments`, in an empty folder.

    Its environment is this one with `environment`. Raises RuntimeError with the last line of what
    went wrong.
    """
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(
            # -B: no compiled code is left in the folder of an export.
            [sys.executable, "-B", "-c", program, *arguments],
            env=os.environ | environment,
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RuntimeError(lines[-1])
    return done.stdout

"""One contestant in a process of its own: reads jobs from stdin and answers on stdout.

    python -m experiments.benchmarks.throughput.worker METHOD SPACE [CACHE]

METHOD_bf16 multiplies bfloat16 numbers in convolutions. SPACE is one of `common.SPACES`.

A job is a line of JSON, {"archs": [[..], ..], "steps": n, "seed": n}; so is an answer: the fields
of `common.Answer` and the peak memory of the process.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys

import numpy as np

MODULES = {
    "ours": "ours",
    "flax": "plain_flax",
    "torch": "plain_torch",
    "torch_per_core": "torch_per_core",
}


def main() -> int:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print must not be taken for an answer
    method, space, *cache = sys.argv[1:]
    name = method.removesuffix("_bf16")
    module = importlib.import_module(f"experiments.benchmarks.throughput.{MODULES[name]}")
    if hasattr(module, "begin"):
        module.begin(*cache)
    for line in sys.stdin:
        job = json.loads(line)
        archs, short = np.asarray(job["archs"], np.int32), name != method
        answer = module.answer(space, archs, job["steps"], job["seed"], *[True] * short)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer._asdict() | {"peak_mib": peak}), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The methods that benchmarks on tables compare, as they run there.

Their numbers are the product's defaults; what is changed is named here, with the reason.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from experiments.benchmarks import floors
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.baselines import evolution, gp, local, ppo, random, tpe
from fnas_jax.methods.baselines.config import Evolution, Gp, Tpe
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.fnas import transfer
from fnas_jax.methods.fnas.config import Aeb, Config, Fnas, Uac
from fnas_jax.methods.rl.config import Ppo
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.tables import Table


class Preset(NamedTuple):
    """A method and how long it runs."""

    make: Callable[..., SearchMethod]  # of the space, and of samples of a source task where `warm`
    iterations: int  # long enough for 95% of the seeds to arrive
    warm: bool = False  # starts from rows of the other task of the same file


def _floor(own: bool, iterations: int, features: bool = False) -> Preset:
    make = functools.partial(floors.make, own=own, most=iterations, features=features)
    return Preset(make, iterations, warm=True)


# One architecture an iteration is trained, the best predicted; the other seven of the batch teach
# the controller by predictions, unless the critic is quite unsure of them. The replay buffer is so
# small that a hundred seeds side by side find room.
FNAS = Config(batch=8, aeb=Aeb(capacity=192))
PRESETS = {
    "random": Preset(lambda space: random.make(space, batch=32), 200),
    "evolution": Preset(lambda space: evolution.make(space, Evolution(), batch=1), 2500),
    "local": Preset(lambda space: local.make(space, batch=1), 1500),
    "gp_ei": Preset(lambda space: gp.make(space, Gp(), batch=1, capacity=150), 150),
    "gp_ucb": Preset(lambda space: gp.make(space, Gp("ucb"), batch=1, capacity=150), 150),
    "tpe": Preset(lambda space: tpe.make(space, Tpe(), batch=1, capacity=400), 400),
    "ppo": Preset(lambda space: ppo.make(space, Ppo(), batch=8), 200),
    "fnas": Preset(lambda space: fnas.make(space, FNAS), 145),
    "gp_warm": _floor(False, 400),
    "gp_warm_own": _floor(True, 150),
    "fnas_warm": Preset(lambda space, source: fnas.make(space, FNAS, source), 30, warm=True),
}


def _uninformed(preset: Preset) -> Preset:
    """By decisions alone: the features of the space are kept from it."""

    def make(space: Space, *source: transfer.SourceTasks) -> SearchMethod:
        return preset.make(space._replace(features=None), *source)

    return preset._replace(make=make)


def _changed(**sections: Any) -> Preset:
    config = FNAS._replace(**sections)
    return Preset(lambda space: fnas.make(space, config), 145)


# With one part off, or another one instead; only run when they are named.
ABLATIONS = {
    "fnas_no_uac": _changed(uac=Uac(enabled=False)),
    # Without replay the product's PPO takes four passes over each batch; here, the same two.
    "fnas_no_aeb": _changed(aeb=dataclasses.replace(FNAS.aeb, enabled=False), ppo=Ppo(epochs=2)),
    # The controller stays as it was drawn: what critic and acquisition do without it.
    "fnas_no_rl": _changed(ppo=Ppo(lr=0.0), fnas=Fnas(imagination=0)),
    # The specification's decision: nothing is acquired, half a deviation is unsure.
    "fnas_spec": _changed(
        fnas=Fnas(verify=0, imagination=4),
        uac=Uac(uncertainty="ensemble", tau=0.5, warmup=16, explore=0.05),
    ),
    "fnas_no_imagination": _changed(fnas=Fnas(imagination=0)),
    "fnas_ensemble": _changed(uac=Uac(uncertainty="ensemble", tau=3.0)),
    "fnas_residual": _changed(uac=Uac(uncertainty="residual", tau=3.0)),
    "fnas_no_features": _uninformed(PRESETS["fnas"]),
    "fnas_warm_no_features": _uninformed(PRESETS["fnas_warm"]),
    "gp_ei_no_features": _uninformed(PRESETS["gp_ei"]),
    "gp_warm_features": _floor(False, 400, features=True),
    "gp_warm_own_features": _floor(True, 150, features=True),
}


SOURCE_ROWS = 200  # of the other task, drawn anew for each seed
OTHER = {"nats_cifar10": "nats_cifar100", "nats_cifar100": "nats_cifar10"}


def source(table: Table) -> transfer.SourceTasks:
    """All rows of a table, of which each search draws its own."""
    task, nothing = np.zeros(len(table.archs), np.int32), np.zeros((2, 0), np.float32)
    return transfer.SourceTasks(table.archs, table.judged, task, nothing, SOURCE_ROWS)

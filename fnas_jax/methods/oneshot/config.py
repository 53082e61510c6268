"""The section `oneshot`: one network for all architectures, which inherit its weights."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax.core.config import key


@dataclass(frozen=True)
class Oneshot:
    """The training of the supernet, and of the winner that inherits from it."""

    steps: int = key(1000, "architectures that train it, a minibatch each", 1, 10**8)
    every: int = key(50, "steps between two log entries", 1, 10**6)
    finetune: int = key(
        300, "steps that train the winner on from its inherited weights; 0: none", 0, 10**7
    )

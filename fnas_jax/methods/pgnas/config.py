"""The section `pgnas`: the posterior over architectures, how it is learnt and sampled."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax.core.config import key


@dataclass(frozen=True)
class Pgnas:
    """Posterior-guided search (arXiv 1906.09557)."""

    gradient: str = key(
        "local",
        "estimator for the posterior; concrete and second for macro, layered, mixed_*",
        choices=("concrete", "local", "second", "score"),
    )
    mc_samples: int = key(1, "architectures drawn and trained in a step", 1, 1024)
    average: bool = key(False, "they move the weights once, on average; else in turn")
    slots: int = key(1, "local: slots whose operations a step compares", 1, 10**4)
    lr: float = key(0.3, "learning rate of the posterior's logits (Adam)", 1e-6, 10.0)
    warmup: float = key(0.5, "share of the steps that train weights only", 0.0, 1.0)
    temperature: float = key(1.0, "temperature of the relaxation at first", 0.01, 100.0)
    temperature_end: float = key(0.1, "and at last", 0.01, 100.0)
    precision: float = key(1e-3, "precision of the prior of all weights (lambda)", 0.0, 1e6)
    gamma: float = key(0.0, "nats that a MFLOP costs in the prior of architectures", 0.0, 1e9)
    mflops: float = key(0.0, "most MFLOPs; gamma rises until samples have less; 0: any", 0.0, 1e9)
    dual: float = key(0.03, "how fast gamma rises and falls then", 0.0, 10.0)
    top: int = key(3, "best samples that have to stay the same", 1, 1000)
    patience: int = key(32, "samples for which they stay before the end; 0: never", 0, 10**7)

"""The variational posterior over the switches of a supernet (PGNAS, arXiv 1906.09557, section 3).

The effective weight of an operation is `z w`, so that a pattern of switches z [L, K] is a network:
L slots, K operations of a slot, padded where slots have fewer. q(z) = prod_l q(z_l) with logits phi
[L, K]:

single: one operation a slot, pi_l = softmax(phi_l), z_l one-hot;
subset: any operations of a slot, whose outputs are added, pi = sigmoid(phi), z_lk on or off.

Everything is for one sample; leading axes of z and noise are allowed where they say [..].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, UserError
from fnas_jax.spaces.base import Space

CHOICES = ("single", "subset")


class Posterior(NamedTuple):
    """The family of q; nothing that changes. `make` builds it."""

    cardinalities: tuple[int, ...]  # [L] operations of each slot
    subset: bool

    @property
    def mask(self) -> np.ndarray:
        """[L, K] bool: the slot has this operation."""
        return np.arange(max(self.cardinalities)) < np.asarray(self.cardinalities)[:, None]

    @property
    def decisions(self) -> int:
        """T: entries of an architecture vector; one a slot (single) or one a switch (subset)."""
        return sum(self.cardinalities) if self.subset else len(self.cardinalities)

    def init(self) -> Array:
        """Phi [L, K] of the uniform distribution."""
        return jnp.zeros(self.mask.shape)

    def logits(self, phi: Array) -> Array:
        """Phi with padding that is never chosen."""
        return jnp.where(self.mask, phi, -jnp.inf)

    def pi(self, phi: Array) -> Array:
        """[L, K] probability that each switch is on; 0 in the padding."""
        if self.subset:
            return jnp.where(self.mask, jax.nn.sigmoid(phi), 0.0)
        return jax.nn.softmax(self.logits(phi), axis=-1)

    def noise(self, key: Array, n: int) -> Array:
        """[n, L, K] Gumbel (single) or logistic (subset) noise, which turns phi into samples."""
        shape = (n, *self.mask.shape)
        return jax.random.logistic(key, shape) if self.subset else jax.random.gumbel(key, shape)

    def draw(self, phi: Array, noise: Array) -> Array:
        """Noise [.., L, K] -> switches [.., L, K] float32 in {0, 1}, distributed as q."""
        if self.subset:
            return jnp.where(self.mask, phi + noise > 0, False).astype(jnp.float32)
        best = jnp.argmax(self.logits(phi) + noise, axis=-1)
        return jax.nn.one_hot(best, self.mask.shape[1])

    def relax(self, phi: Array, noise: Array, temperature: Array | float) -> Array:
        """The Concrete relaxation of `draw` with the same noise (arXiv 1611.00712, eq. 10, 22)."""
        if self.subset:
            soft = jax.nn.sigmoid((phi + noise) / temperature)
            return jnp.where(self.mask, soft, 0.0)
        logits = jnp.where(self.mask, (phi + noise) / temperature, -jnp.inf)
        return jax.nn.softmax(logits, axis=-1)

    def log_prob(self, phi: Array, z: Array) -> Array:
        """[..] log q(z) in nats of switches [.., L, K]."""
        if self.subset:
            each = jnp.where(z > 0, jax.nn.log_sigmoid(phi), jax.nn.log_sigmoid(-phi))
        else:
            each = jnp.where(z > 0, jax.nn.log_softmax(self.logits(phi), axis=-1), 0.0)
        return jnp.where(self.mask, each, 0.0).sum((-2, -1))

    def entropy(self, phi: Array) -> Array:
        """[L] entropy in nats of each slot."""
        if self.subset:
            pi, on, off = jax.nn.sigmoid(phi), jax.nn.log_sigmoid(phi), jax.nn.log_sigmoid(-phi)
            each = -pi * on - (1 - pi) * off
        else:
            log_pi = jax.nn.log_softmax(self.logits(phi), axis=-1)
            # Zeros, not minus infinity, behind the mask: 0 times infinity has no derivative.
            log_pi = jnp.where(self.mask, log_pi, 0.0)
            each = -jnp.exp(log_pi) * log_pi
        return jnp.where(self.mask, each, 0.0).sum(-1)

    def mode(self, phi: Array) -> Array:
        """[L, K] the most probable switches."""
        return self.draw(phi, jnp.zeros_like(phi))

    def to_archs(self, z: Array) -> Array:
        """Switches [.., L, K] -> architecture vectors [.., T] int32."""
        if self.subset:
            return z[..., self.mask].astype(jnp.int32)
        return z.argmax(-1).astype(jnp.int32)

    def by_decision(self, phi: Array) -> list[list[float]]:
        """The probabilities of the choices of each of the T decisions, for logs.

        Of a slot its operations, without padding; of a switch off and on.
        """
        pi = np.asarray(self.pi(phi), float)
        if self.subset:
            return [[1 - on, on] for on in pi[self.mask].tolist()]
        return [row[:k] for row, k in zip(pi.tolist(), self.cardinalities, strict=True)]


def of_space(space: Space) -> Posterior:
    """That of a space's architectures: subsets where its decisions are switches, `Space.slots`.

    Raises UserError for slots that do not have all decisions, or decisions that are no switches.
    """
    if not space.slots:
        return make(space.cardinalities)
    if sum(space.slots) != len(space.cardinalities) or set(space.cardinalities) != {2}:
        raise UserError(
            f"the space {space.name!r} has slots of {', '.join(map(str, space.slots))} switches;"
            f" they need as many decisions, of 2 choices each, and it has"
            f" {len(space.cardinalities)} of {', '.join(map(str, space.cardinalities))}"
        )
    return make(space.slots, "subset")


def make(cardinalities: Sequence[int], choice: str = "single") -> Posterior:
    """The family for slots with so many operations. Raises UserError for another `choice`."""
    if choice not in CHOICES:
        raise UserError(f"choice is {choice!r}; allowed are {', '.join(CHOICES)}")
    cards = tuple(int(k) for k in cardinalities)
    if not cards or min(cards) < 1:
        raise UserError(f"every slot needs at least one operation, got {cards}")
    return Posterior(cards, choice == "subset")

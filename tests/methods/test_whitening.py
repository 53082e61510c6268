"""Inverse Cholesky factors against NumPy, in searches side by side, and without LAPACK."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import fnas_jax
from fnas_jax.core.precision import float64
from fnas_jax.methods import whitening


def positive(rng, n, noise):
    x = rng.normal(size=(n, max(n // 2, 1)))
    return x @ x.T + noise * np.eye(n)


@settings(max_examples=20, deadline=None)
@given(n=st.sampled_from([0, 1, 2, 31, 32, 33, 64, 90]), seed=st.integers(0, 9))
def test_it_is_the_inverse_of_numpys_factor(n, seed):
    matrix = positive(np.random.default_rng(seed), n, 0.1)
    expected = np.linalg.inv(np.linalg.cholesky(matrix)) if n else matrix
    with float64():
        got = jax.jit(whitening.inverse_factor)(jnp.asarray(matrix))
    assert got.dtype == jnp.float64 and (np.triu(got, 1) == 0).all()
    np.testing.assert_allclose(got, expected, atol=1e-9 * max(np.abs(expected).max(initial=0), 1))


def test_float32_is_as_near_as_lapack():
    """By the residual of W K W' = I, on a kernel of condition 3e4."""
    x = np.random.default_rng(0).normal(size=(150, 4))
    exact = np.exp(-((x[:, None] - x) ** 2).sum(-1) / 8) + 0.003 * np.eye(150)
    kernel = jnp.asarray(exact, jnp.float32)
    by_lapack = np.linalg.inv(np.asarray(jnp.linalg.cholesky(kernel), np.float64))

    def residual(white):
        return np.abs(white @ exact @ white.T - np.eye(150)).max()

    mine = residual(np.asarray(jax.jit(whitening.inverse_factor)(kernel), np.float64))
    assert mine < 3 * residual(by_lapack) < 0.1


def test_a_matrix_without_a_factor_gives_nan():
    matrix = jnp.diag(jnp.array([1.0, -1.0, 1.0]))
    assert not np.isfinite(whitening.inverse_factor(matrix)).all()


def test_batches_are_those_of_single_ones():
    rng = np.random.default_rng(1)
    batch = jnp.asarray([positive(rng, 40, 0.5) for _ in range(3)], jnp.float32)
    got = jax.jit(jax.vmap(whitening.inverse_factor))(batch)
    for one, white in zip(batch, got, strict=True):
        np.testing.assert_allclose(whitening.inverse_factor(one), white, rtol=1e-4, atol=1e-5)


def test_lapack_is_never_given_a_batch_on_a_cpu():
    """A batch of it waits for XLA's threads on one of them: two at once could wait for ever."""
    batch = jnp.zeros((5, 3, 64, 64))
    text = jax.jit(jax.vmap(jax.vmap(whitening.inverse_factor))).lower(batch).compile().as_text()
    calls = [line for line in text.splitlines() if 'custom_call_target="lapack' in line]
    assert calls and all("f32[64,64]" in c and "f32[5" not in c and "[15" not in c for c in calls)


def test_nothing_else_factorises_or_solves():
    """In what XLA runs; of the kind that can wait for ever, as numpy's cannot."""
    calls = re.compile(
        r"(?<!\bnp\.)linalg\.(cholesky|solve|inv|eigh|svd|qr|lu|slogdet)|solve_triangular|cho_"
    )
    root = pathlib.Path(fnas_jax.__file__).parent
    found = {p.name for p in root.rglob("*.py") if calls.search(p.read_text())}
    assert found == {"whitening.py"}

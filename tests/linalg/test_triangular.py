"""divided: systems with Kronecker products of triangular matrices."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.triangular import divided

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("kind", ["float32", "complex64"])
def test_it_is_the_inverse_of_the_adjoint_product(kind):
    draw = lambda *shape: (RNG.normal(size=shape) + (1j * RNG.normal(size=shape) if "c" in kind else 0)).astype(kind)
    p, q = (np.triu(draw(2, d, d)) + 3 * np.eye(d, dtype=kind) for d in (3, 4))
    diagonal = draw(2, 5) + 3
    x = draw(2, 3, 5, 4)
    y = divided(jnp.asarray(x), [jnp.asarray(p), jnp.asarray(diagonal), jnp.asarray(q)])
    back = np.einsum("nia,njb,nk,nijk->nakb", p.conj(), q.conj(), diagonal.conj(), np.moveaxis(np.asarray(y), 2, 3))
    np.testing.assert_allclose(back, x, rtol=1e-4, atol=1e-4)

"""equalize_neurons (MuonEq, 2603.28254), normalize_neurons (NorMuon, 2510.05491), equalize_matrices (Muon+)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise

SHAPES = {"dense": {"kernel": (4, 3), "wide": (2, 5)}}
OUTPUTS_FIRST = gradtx.MuonDimensionNumbers(1, 0)


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def once(tx, g):
    return np.asarray(tx.update(jnp.asarray(g, jnp.float32), tx.init(jnp.ones(g.shape)))[0])


@both_precisions
def test_equal_neurons_are_the_papers(precision):
    def method(p):
        return lambda g, p, t: (
            (g.T * (np.linalg.norm(g) / np.sqrt(g.shape[1])) / np.linalg.norm(g.T, axis=1)[:, None]).T
        )

    check(gradtx.equalize_neurons(), leafwise(method), precision, shapes=SHAPES)


def test_equal_neurons_have_equal_lengths_and_the_norm_stays():
    g = draw(6, 4) * np.array([1.0, 10.0, 0.1, 0.0])
    u = once(gradtx.equalize_neurons(), g)
    np.testing.assert_allclose(np.linalg.norm(u, axis=0)[:3], np.linalg.norm(g) / 2, rtol=1e-5)
    assert not u[:, 3].any()
    twice = once(gradtx.equalize_neurons(), u[:, :3])
    np.testing.assert_allclose(twice, u[:, :3], rtol=1e-5)


@both_precisions
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_normalized_neurons_are_the_papers(eps, precision):
    def method(p):
        nu = np.zeros(p.shape[1])

        def step(g, p, t):
            nonlocal nu
            nu = 0.9 * nu + 0.1 * np.mean(g**2, axis=0)
            v = g / (np.sqrt(nu) + eps)
            return v * np.linalg.norm(g) / np.linalg.norm(v)

        return step

    check(gradtx.normalize_neurons(0.9, eps), leafwise(method), precision, shapes=SHAPES)


@both_precisions
@pytest.mark.parametrize(("rms", "eps"), [(None, 0.0), (0.2, 0.0), (0.2, 0.5)])
def test_equal_matrices_are_the_papers(rms, eps, precision):
    def method(p):
        size = np.sqrt(min(p.shape)) if rms is None else rms * np.sqrt(p.size)
        return lambda g, p, t: g * size / (np.linalg.norm(g) + eps)

    check(gradtx.equalize_matrices(None, rms, eps=eps), leafwise(method), precision, shapes=SHAPES)


LINKS = {
    "equalize_neurons": lambda numbers=None: gradtx.equalize_neurons(numbers),
    "normalize_neurons": lambda numbers=None: gradtx.normalize_neurons(weight_dimension_numbers=numbers),
    "equalize_matrices": lambda numbers=None: gradtx.equalize_matrices(numbers),
}
each = pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)


@each
def test_outputs_first_are_the_transposes(link):
    g = draw(3, 5)
    np.testing.assert_allclose(once(link(OUTPUTS_FIRST), g.T), once(link(), g).T, rtol=1e-5)


@each
def test_matrices_of_a_stack_and_side_by_side_are_each_for_itself(link):
    g = draw(4, 3, 5)
    alone = np.stack([once(link(), x) for x in g])
    np.testing.assert_allclose(once(link(gradtx.MuonDimensionNumbers(1, 2)), g), alone, rtol=1e-5)
    beside = np.concatenate(list(g), axis=1)
    fused = link(gradtx.MuonDimensionNumbers(0, 1, parts={1: 4}))
    np.testing.assert_allclose(once(fused, beside), np.concatenate(list(alone), axis=1), rtol=1e-5)


@each
def test_the_scale_of_the_gradient_stays_or_does_not_matter(link):
    g = draw(3, 5)
    factor = 1 if link is LINKS["equalize_matrices"] else 8
    np.testing.assert_allclose(once(link(), 8 * g), factor * once(link(), g), rtol=1e-4)


@each
@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 4), (4, 1), (1, 1)])
def test_matrices_of_one_row_or_of_none(link, shape):
    u = once(link(), np.ones(shape))
    assert u.shape == shape and np.all(np.isfinite(u))


@each
@pytest.mark.parametrize("factor", [0.0, 1e-30, 1e30])
def test_updates_stay_finite(link, factor):
    u = once(link(), np.float32(factor) * draw(3, 5).astype(np.float32))
    assert np.all(np.isfinite(u)) and (factor or not u.any())


@each
def test_nan_decides_for_its_own_leaf(link):
    g = {"a": jnp.ones((2, 3)).at[0, 0].set(jnp.nan), "b": jnp.asarray(draw(2, 3), jnp.float32)}
    tx = link()
    u = tx.update(g, tx.init(g))[0]
    np.testing.assert_allclose(u["b"], once(tx, np.asarray(g["b"])), rtol=1e-6)


@each
def test_what_is_no_matrix_is_an_error_that_names_it(link):
    tx = link()
    with pytest.raises(ValueError, match=rf"`{tx.name}`.*'bias'.*\(3,\)"):
        tx.update({"bias": jnp.ones(3)}, tx.init({"bias": jnp.ones(3)}))


def test_a_neuron_costs_one_number():
    params = {"w": jnp.ones((7, 5), jnp.bfloat16), "heads": jnp.ones((7, 12))}
    numbers = {"w": gradtx.MuonDimensionNumbers(), "heads": gradtx.MuonDimensionNumbers(parts={1: 3})}
    nu = gradtx.normalize_neurons(weight_dimension_numbers=numbers).init(params).nu
    assert nu["w"].shape == (5,) and nu["w"].dtype == jnp.float32 and nu["heads"].shape == (3, 4)


def test_complex_neurons():
    check_same(
        gradtx.normalize_neurons(), gradtx.chain(gradtx.scale(1.0), gradtx.normalize_neurons()), shapes=SHAPES,
        complex_leaves=("dense/kernel",),
    )  # fmt: skip
    g = jnp.asarray(draw(3, 2) + 1j * draw(3, 2, seed=1), jnp.complex64)
    tx = gradtx.equalize_neurons()
    u = tx.update(g, tx.init(g))[0]
    np.testing.assert_allclose(jnp.linalg.norm(u, axis=0), jnp.linalg.norm(g) / 2**0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: gradtx.normalize_neurons(1.0), "`normalize_neurons`.*b2"),
        (lambda: gradtx.normalize_neurons(eps=-1.0), "`normalize_neurons`.*eps"),
        (lambda: gradtx.equalize_matrices(rms=-1.0), "`equalize_matrices`.*rms"),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(build, said):
    with pytest.raises(ValueError, match=said):
        build()


def test_they_can_be_differentiated_where_updates_are_zero():
    for link in LINKS.values():
        tx = link()
        loss = lambda g, tx=tx: jnp.sum(jnp.sin(tx.update(g, tx.init(g))[0]))
        assert np.all(np.isfinite(jax.grad(loss)(jnp.zeros((2, 3)))))

"""newton_schulz, orthogonalize, and one array; the numbers are proved in tests/linalg/test_newton_schulz.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

CONVERGENT = (2.0, -1.5, 0.5)


def test_a_step_for_one_array():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    found = gradtx.orthogonalize_via_newton_schulz(x, jnp.array(CONVERGENT), ns_steps=25, eps=1e-12)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-5)
    rows = gradtx.orthogonalize_via_newton_schulz(x, [CONVERGENT] * 25, ns_steps=1, eps=1e-12)
    np.testing.assert_array_equal(rows, found)
    folded = gradtx.orthogonalize_via_newton_schulz(
        x.reshape(2, 2, 3), jnp.array(CONVERGENT), 25, eps=1e-12, dimension_numbers=((0, 1), 2)
    )
    np.testing.assert_allclose(folded.reshape(4, 3), found, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "arguments", "said"),
    [
        (jnp.ones((2, 2)), {"ns_coeffs": jnp.ones(2)}, r"ns_coeffs.*\(2,\)"),
        (jnp.ones((2, 2)), {"ns_coeffs": jnp.ones(3), "preconditioning": "frobenus"}, "preconditioning.*frobenus"),
        (jnp.ones((2, 2, 2)), {"ns_coeffs": jnp.ones(3)}, "dimension_numbers"),
    ],
)
def test_bad_arguments_are_errors_that_name_them(x, arguments, said):
    with pytest.raises(ValueError, match=f"`orthogonalize_via_newton_schulz`.*{said}"):
        gradtx.orthogonalize_via_newton_schulz(x, **arguments)


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def once(tx, g):
    return tx.update(g, tx.init(g))[0]


def test_the_iteration_is_a_value():
    one, other = gradtx.newton_schulz([CONVERGENT] * 12, eps=0), gradtx.newton_schulz((CONVERGENT,) * 12, eps=0.0)
    assert one == other and hash(one) == hash(other) and one.triples == gradtx.newton_schulz("newton").triples
    assert jax.tree.leaves(one) == []
    assert repr(gradtx.newton_schulz("dion", 3)) == "newton_schulz(coefficients='dion', steps=3)"
    for each in (one, gradtx.newton_schulz("cans", start="aol", gram=True, dtype=jnp.float16, least=1e-3, safety=1.1)):
        assert eval(repr(each), {"newton_schulz": gradtx.newton_schulz}) == each


def test_steps_are_of_the_triples_that_there_are():
    assert len(gradtx.newton_schulz().triples) == 5 and len(gradtx.newton_schulz(steps=7).triples) == 7
    dion = gradtx.newton_schulz("dion").triples
    assert gradtx.newton_schulz("dion", 3).triples == dion[:3]
    deepseek = gradtx.newton_schulz("deepseek_v4").triples
    assert deepseek == gradtx.newton_schulz(steps=8).triples + ((2.0, -1.5, 0.5),) * 2


def test_tall_matrices_are_the_transposes_of_wide_ones():
    x, fn = draw(2, 3, 7), gradtx.newton_schulz()
    np.testing.assert_array_equal(fn(x.mT), fn(x).mT)


@pytest.mark.parametrize("gram", [False, True])
def test_narrow_products_give_wide_results(gram):
    x = draw(2, 16, 64)
    y = gradtx.newton_schulz("dion", gram=gram, dtype="bfloat16")(x)
    s = np.linalg.svd(y, compute_uv=False)
    assert y.dtype == jnp.float32 and 0.85 < s.min() and s.max() < 1.15
    assert "bf16" in str(jax.make_jaxpr(gradtx.newton_schulz(dtype="bfloat16"))(x))


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"coefficients": "jordan"}, ValueError, "coefficients.*polar_express.*jordan"),
        ({"coefficients": (1.0, 2.0)}, ValueError, "coefficients.*three numbers"),
        ({"coefficients": "dion", "steps": 6}, ValueError, "steps must be at most 5.*6"),
        ({"steps": -1}, ValueError, "steps"),
        ({"steps": 2.5}, ValueError, "steps"),
        ({"start": "nuclear"}, ValueError, "start.*frobenius.*nuclear"),
        ({"eps": -1e-8}, ValueError, "eps"),
        ({"safety": 0.0}, ValueError, "safety"),
        ({"gram": 1}, ValueError, "gram"),
        ({"dtype": "int32"}, TypeError, "dtype"),
        ({"eps": lambda t: t}, TypeError, "eps is compiled in"),
        ({"coefficients": "cans", "dtype": "bfloat16"}, ValueError, "cans.*diverges in bfloat16"),
    ],
)
def test_bad_arguments_of_the_iteration_are_errors_that_name_them(arguments, error, said):
    with pytest.raises(error, match=f"`newton_schulz`.*{said}"):
        gradtx.newton_schulz(**arguments)


ORTHOGONALIZERS = {
    "standard": None,
    "gram": gradtx.newton_schulz(gram=True),
    "own": lambda x: jnp.linalg.svd(x, full_matrices=False)[0] @ jnp.linalg.svd(x, full_matrices=False)[2],
}


@pytest.mark.parametrize("orthogonalizer", ORTHOGONALIZERS.values(), ids=ORTHOGONALIZERS)
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (4, 4)])
def test_rotating_the_gradient_rotates_the_step_and_scaling_it_does_not(shape, orthogonalizer):
    g, tx = draw(*shape), gradtx.orthogonalize(orthogonalizer)
    left, right = (np.linalg.qr(draw(n, n, seed=n))[0] for n in shape)
    np.testing.assert_allclose(once(tx, left @ g @ right), left @ once(tx, g) @ right, atol=2e-4)
    np.testing.assert_allclose(once(tx, 1024 * g), once(tx, g), atol=2e-4)
    np.testing.assert_allclose(once(tx, -g), -once(tx, g), atol=2e-4)


def test_one_of_ones_own_is_given_wide_stacks():
    seen = []
    tx = gradtx.orthogonalize(lambda x: seen.append(x.shape) or x)
    params = {"tall": draw(6, 4), "wide": draw(4, 6), "heads": draw(2, 3, 5)}
    numbers = {"tall": (0, 1), "wide": (0, 1), "heads": (1, 2)}
    numbers = {name: gradtx.MuonDimensionNumbers(*axes) for name, axes in numbers.items()}
    tx = gradtx.orthogonalize(tx.orthogonalizer, numbers)
    for x, y in zip(jax.tree.leaves(once(tx, params)), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(x, y)
    assert all(rows <= columns for _, rows, columns in seen)


def test_leaves_without_gradient_stay_without():
    tx, params = gradtx.orthogonalize(), {"a": draw(3, 2), "b": draw(2, 2)}
    updates, state = tx.update({"a": None, "b": params["b"]}, tx.init(params))
    assert updates["a"] is None and state == tx.init(params)


def test_what_is_no_function_or_no_matrix_is_an_error():
    with pytest.raises(TypeError, match="`orthogonalize`: orthogonalizer must be a function"):
        gradtx.orthogonalize("dion")
    with pytest.raises(ValueError, match=r"`orthogonalize`.*'bias'"):
        gradtx.orthogonalize().init({"bias": jnp.ones(3)})

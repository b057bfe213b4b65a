"""Every loss has the values and the slopes of its formula, those of Optax, and keeps digits in narrow dtypes."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax.losses import _classification

from gradtx import losses

from .cases import CASES, CUBE, X, names

each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def theirs(name):
    return getattr(optax.losses, name, None) or getattr(_classification, name)


def total(case, lib):
    """The sum of the losses, as a function of the arguments to differentiate by."""

    def fn(*chosen):
        args = list(case.args)
        for i, x in zip(case.slopes, chosen, strict=True):
            args[i] = x
        return jnp.sum(jnp.sin(case.call(lib, *args)))  # each loss has another slope

    return fn, [jnp.asarray(case.args[i]) for i in case.slopes]


def test_every_loss_has_a_case():
    assert {case.name for case in CASES} == names(losses)


@each
@pytest.mark.parametrize(("precision", "rtol", "atol"), [("float32", 1e-5, 2e-6), ("float64", 1e-12, 1e-13)])
def test_values_are_those_of_the_formula(case, precision, rtol, atol):
    """To tens of roundings, of 6e-8 or 1e-16."""
    with jax.enable_x64(precision == "float64"):
        args = [np.asarray(x, precision) if np.asarray(x).dtype == float else x for x in case.args]
        found = jax.jit(lambda *args: case.call(losses, *args))(*args)
        assert found.dtype == precision
        np.testing.assert_allclose(found, case.expected(), rtol=rtol, atol=atol)


@each
def test_values_and_slopes_are_optaxs(case):
    if not case.alike:
        pytest.skip("Optax's numbers differ: see the docstring")
    lib = type("lib", (), {case.name: staticmethod(theirs(case.name))})
    with jax.enable_x64(True):
        (ours, args), (other, _) = total(case, losses), total(case, lib)

        @jax.jit
        def both(*args):
            each_slope = [jax.grad(fn, tuple(range(len(args))))(*args) for fn in (ours, other)]
            return [case.call(losses), case.call(lib)], each_slope

        values, slopes = both(*args)
        np.testing.assert_allclose(*values, rtol=1e-12, atol=1e-13)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12), *slopes)


@each
def test_slopes_are_differences(case):
    """Forward, backward, and again: along one direction, in one program."""
    with jax.enable_x64(True):
        fn, args = total(case, losses)
        rng = np.random.default_rng(1)
        way = tuple(jnp.asarray(rng.normal(size=x.shape)) for x in args)

        @jax.jit
        def found(args, way):
            slopes = jax.grad(fn, tuple(range(len(args))))
            product = lambda xs: sum(jnp.sum(x * w) for x, w in zip(slopes(*xs), way, strict=True))
            moved = lambda size: tuple(x + size * w for x, w in zip(args, way, strict=True))
            difference = lambda f: (f(moved(1e-5)) - f(moved(-1e-5))) / 2e-5
            forward = jax.jvp(fn, args, way)[1]
            again = jax.jvp(product, (args,), (way,))[1]
            return forward, product(args), difference(lambda xs: fn(*xs)), again, difference(product)

        forward, backward, difference, again, its_difference = found(tuple(args), way)
        np.testing.assert_allclose(forward, backward, rtol=1e-10)
        # a central difference of 1e-5 has an error of 1e-10 times the third derivative, and rounding of 1e-11
        np.testing.assert_allclose(backward, difference, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(again, its_difference, rtol=1e-5, atol=1e-6)


@each
def test_narrow_arguments_are_computed_wide_and_rounded_once(case):
    dtype = "float16" if case.args[0] is CUBE else "bfloat16"
    as_narrow = lambda x: jnp.asarray(x, dtype) if np.asarray(x).dtype == float and np.ndim(x) else x
    args = [as_narrow(x) for x in case.args]
    kwargs = {key: as_narrow(x) for key, x in case.kwargs.items()}
    fn = getattr(losses, case.name)
    found = fn(*args, **kwargs)
    assert found.dtype == dtype
    to_float32 = lambda x: x.astype(jnp.float32) if getattr(x, "dtype", None) == dtype else x
    wide = fn(*map(to_float32, args), **{key: to_float32(x) for key, x in kwargs.items()})
    assert jnp.all(found == wide.astype(dtype))
    slope = jax.jit(jax.grad(lambda x: jnp.sum(fn(x, *args[1:], **kwargs).astype(jnp.float32))))(args[0])
    assert slope.dtype == dtype and jnp.all(jnp.isfinite(slope))


@each
def test_the_dtype_is_optaxs(case):
    if case.name.startswith("multiclass") and case.args[0] is X:  # one-hot labels make Optax's float32
        pytest.skip("here they have the dtype of the scores")
    args = [jnp.asarray(x, jnp.bfloat16) if np.asarray(x).dtype == float and np.ndim(x) else x for x in case.args]
    kwargs = {key: x for key, x in case.kwargs.items() if key not in ("weights", "class_weights")}
    found = [jax.eval_shape(lambda: fn(*args, **kwargs)) for fn in (getattr(losses, case.name), theirs(case.name))]
    assert found[0].dtype == found[1].dtype and found[0].shape == found[1].shape


@each
def test_a_batch_may_be_mapped(case):
    fn = lambda x: case.call(losses, x, *case.args[1:])
    stacked = jax.jit(jax.vmap(fn))(jnp.stack([case.args[0], 2 * case.args[0]]))
    np.testing.assert_allclose(stacked[0], fn(jnp.asarray(case.args[0])), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("older", "newer", "args"),
    [
        ("convex_kl_divergence", "generalized_kl_divergence", (jnp.log(jnp.array([0.2, 0.8])), jnp.array([0.5, 0.5]))),
        ("binary_logistic_loss", "sigmoid_binary_cross_entropy", (jnp.array([1.0, -2.0]), jnp.array([1.0, 0.0]))),
        (
            "multiclass_logistic_loss",
            "softmax_cross_entropy_with_integer_labels",
            (jnp.array([1.0, -2.0]), jnp.array(1)),
        ),
        ("binary_sparsemax_loss", "sparsemax_loss", (jnp.array([0.5, -2.0]), jnp.array([1, 0]))),
    ],
)
def test_older_names_warn(older, newer, args):
    with pytest.warns(DeprecationWarning, match=f"The function {older} is deprecated. Please use {newer} instead."):
        found = getattr(losses, older)(*args)
    np.testing.assert_array_equal(found, getattr(losses, newer)(*args))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        theirs(older)(*args)
    assert f"The function {older} is deprecated" in str(caught[0].message)

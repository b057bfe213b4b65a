"""scale_by_fira, fira: Chen et al. 2025 (arXiv 2410.01623), section 4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers.low_rank_oracle import limiter, low_rank, ratio, singular_vectors
from tests.oracle import check, check_same

SHAPES = {"tall": (7, 4), "wide": (3, 6), "square": (4, 4), "bias": (3,), "scale": ()}


def fira(lr, rank, *, scale=1.0, side="shorter", scale_type="channel", growth=1.01, **options):
    """u = scale P N + S,  S = phi (g - scale P R), limited in its growth."""

    def rule(params):
        limited = limiter(growth)

        def combine(g, r, n, back, axis, path):
            rest = (g - scale * back(r)) * ratio(n, r, axis, scale_type)
            return scale * back(n) + limited(rest, path)

        return low_rank(lr, combine, singular_vectors(rank), side, after=True, **options)(params)

    return rule


# float32: P is off by some roundings over the gap between singular values, about 1/10
LOOSER = {"float32": 1e-3, "float64": 1e-10}


OPTIONS = [
    {},
    {"scale": 0.25, "side": "longer"},
    {"scale_type": "tensor", "side": "rows"},
    {"growth": None, "side": "columns"},
    {"b1": 0.5, "b2": 0.75, "eps": 0.1, "decay": 0.1, "corrected": False, "growth": 1.5},
]


@pytest.mark.parametrize(
    ("options", "precision"), [*[(x, "float64") for x in OPTIONS], (OPTIONS[0], "float32"), (OPTIONS[-1], "float32")]
)
def test_the_rest_is_scaled_as_what_is_projected(options, precision):
    names = {"growth": "norm_growth", "decay": "weight_decay", "corrected": "bias_correction"}
    ours = {names.get(name, name): x for name, x in options.items()}
    rule = fira(0.02, 2, **{"eps": 1e-6} | options)
    check(gradtx.fira(0.02, 2, **ours), rule, precision, shapes=SHAPES, tolerance=LOOSER[precision])


def test_with_bias_corrected_first_the_limit_is_of_other_sizes():
    """Without a limit it is the same whether each factor is corrected or their product; eps is 0."""
    base = gradtx.scale_by_adam(eps=0.0)
    first = gradtx.scale_by_fira(2, base_optimizer=base, norm_growth=None)
    last = gradtx.chain(
        gradtx.scale_by_fira(2, base_optimizer=gradtx.scale_by_adam(eps=0.0, bias_correction=False), norm_growth=None),
        gradtx.scale_by_bias_correction(),
    )
    check_same(first, last, shapes={"tall": (5, 3), "bias": (3,)}, tolerance=1e-7)  # the 1e-8 beside |R|


def test_of_full_rank_nothing_is_left():
    galore = gradtx.scale_by_galore(4, side="shorter")
    check_same(gradtx.scale_by_fira(4), galore, shapes={"square": (4, 4), "bias": (2,)}, tolerance=1e-10)


def test_the_state_is_that_of_galore_and_a_norm():
    params = {"w": jnp.ones((8, 4)), "b": jnp.ones(4)}
    state = gradtx.scale_by_fira(2).init(params)
    assert state.projector["w"].shape == (4, 2) and state.base_optimizer_state.mu["w"].shape == (8, 2)
    assert state.norm["w"].shape == () and state.norm["b"] is None
    assert gradtx.scale_by_fira(2, norm_growth=None).init(params).norm is None


def test_gradients_of_zero_do_not_move_nor_limit_what_comes():
    tx = gradtx.scale_by_fira(1)
    p = jnp.zeros((3, 3))
    state = tx.init(p)
    for g in (p, jnp.eye(3), 1e-3 * jnp.eye(3)):
        u, state = tx.update(g, state)
        assert jnp.all(jnp.isfinite(u)) and bool(jnp.any(u)) == bool(jnp.any(g))


def test_a_stack_is_its_matrices():
    numbers = gradtx.GaLoreDimensionNumbers(-2, -1)
    tx = gradtx.scale_by_fira(2, 2, weight_dimension_numbers=numbers, scale_type="tensor")
    stack, apart = jnp.zeros((3, 5, 4)), [jnp.zeros((5, 4))] * 3
    states = tx.init(stack), tx.init(apart)
    assert states[0].norm.shape == (3,)
    for t in range(4):
        g = jax.random.normal(jax.random.key(t), stack.shape)
        together, first = tx.update(g, states[0])
        each, second = tx.update(list(g), states[1])
        states = first, second
        np.testing.assert_allclose(together, jnp.stack(each), atol=1e-5)  # float32


@pytest.mark.parametrize(
    ("argument", "value"), [("norm_growth", 0.5), ("side", "both"), ("scale_type", "row"), ("projection", "qr")]
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_fira`: {argument} must .*{value}"):
        gradtx.fira(0.1, **{argument: value})

"""scion: Pethick et al. 2025."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import labels
from tests.oracle import both_precisions, check, check_same
from tests.transforms.test_linear_minimization import orthogonal

SHAPES = {"dense": {"kernel": (4, 3), "bias": (3,)}, "head": (3, 6), "scale": ()}
# the polynomials have slopes up to 3.4, five times
LOOSE = {"float64": 1e-10, "float32": 2e-4}


def rule(lr=0.02, beta=0.9, scale=1.0, constrained=True, sign=(), sign_scale=1.0):
    """For matrices and vectors, in flat dicts; those in `sign` have the sign's norm."""

    def start(params):
        means = {path: np.zeros_like(p) for path, p in params.items()}

        def step(grads, params, t):
            updates = {}
            for path, g in grads.items():
                means[path] = m = beta * means[path] + (1 - beta) * g
                if path in sign:
                    u = sign_scale * np.sign(m) / m.shape[0]
                elif m.ndim == 2:
                    u = scale * np.sqrt(m.shape[1] / m.shape[0]) * orthogonal(m)
                else:
                    u = scale * m / (np.sqrt(np.mean(m**2)) + 1e-8)
                updates[path] = -lr * (u + (params[path] if constrained else 0))
            return updates

        return step

    return start


@both_precisions
@pytest.mark.parametrize("constrained", [True, False])
def test_twelve_steps_are_the_papers(constrained, precision):
    tx = gradtx.scion(0.02, scale=3.0, constrained=constrained)
    check(tx, rule(scale=3.0, constrained=constrained), precision, shapes=SHAPES, tolerance=LOOSE[precision])


def test_a_head_may_have_another_norm_and_another_radius():
    groups = labels.groups({"ends": labels.role("embedding", "head") | "^head$", "rest": ...})
    several = {"rest": gradtx.scion(0.02, scale=3.0), "ends": gradtx.scion(0.02, norm="sign", scale=50.0)}
    check(gradtx.partition(several, groups), rule(scale=3.0, sign=("head",), sign_scale=50.0), shapes=SHAPES)


def test_the_recipe_of_the_source():
    """An embedding that is the output layer too, as in nanoGPT."""
    params = {
        "wte": {"embedding": jnp.ones((7, 4))},
        "h_0": {"fc": {"kernel": jnp.ones((4, 8)), "bias": jnp.ones(8)}, "ln": {"scale": jnp.ones(4)}},
        "lm_head": {"kernel": jnp.ones((4, 7))},
    }
    groups = labels.groups({"ends": labels.role("embedding", "head"), "rest": ...})
    tx = gradtx.partition(
        {"rest": gradtx.scion(1.0, 0.0, scale=50.0), "ends": gradtx.scion(1.0, 0.0, norm="sign", scale=3000.0)}, groups
    )
    updates, _ = tx.update(params, tx.init(params), params)
    steps = jax.tree.map(lambda u, p: u + p, updates, params)  # at a learning rate of 1, onto the sphere
    np.testing.assert_allclose(steps["wte"]["embedding"], -3000 / 7, rtol=1e-6)
    np.testing.assert_allclose(steps["lm_head"]["kernel"], -3000 / 4, rtol=1e-6)
    np.testing.assert_allclose(steps["h_0"]["fc"]["bias"], -50.0, rtol=1e-6)
    np.testing.assert_allclose(steps["h_0"]["ln"]["scale"], -50.0, rtol=1e-6)


BALLS = {
    "sign": lambda w: 4 * np.max(np.abs(w)),
    "colnorm": lambda w: np.max(np.linalg.norm(w, axis=1)) / np.sqrt(3),
    "rownorm": lambda w: 2 * np.max(np.linalg.norm(w, axis=0)),
}


@pytest.mark.parametrize("norm", BALLS)
def test_weights_stay_in_the_ball_of_their_norm(norm):
    tx = gradtx.scion(gradtx.cosine_decay_schedule(0.5, 50), norm=norm, scale=2.0)
    params = jnp.zeros((4, 3))

    @jax.jit
    def step(params, state, key):
        updates, state = tx.update(jax.random.normal(key, params.shape) + 0.3, state, params)
        return gradtx.apply_updates(params, updates), state

    state, sizes = tx.init(params), []
    for key in jax.random.split(jax.random.key(0), 50):
        params, state = step(params, state, key)
        sizes.append(BALLS[norm](np.asarray(params)))
    assert max(sizes) <= 2.0 * (1 + 1e-6) and sizes[-1] > 0.5


def test_the_parameters_are_averages_of_points_of_the_sphere():
    """So at a learning rate of 1 they are such a point, wherever they were."""
    params, g = 100.0 * jnp.ones((4, 3)), jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    tx = gradtx.scion(1.0, norm="sign", scale=2.0)
    updates, _ = tx.update(g, tx.init(params), params)
    np.testing.assert_allclose(gradtx.apply_updates(params, updates), -2.0 * np.sign(g) / 4, atol=1e-5)


def test_it_is_a_chain_of_links():
    links = gradtx.chain(
        gradtx.ema(0.8, debias=False),
        gradtx.scale_by_lmo("rownorm"),
        gradtx.scale(3.0),
        gradtx.add_decayed_weights(1.0),
        gradtx.scale_by_learning_rate(0.1),
    )
    assert gradtx.scion(0.1, 0.8, "rownorm", 3.0) == links


@pytest.mark.parametrize("momentum", [0.1, 0.5])
def test_the_light_form_takes_the_same_steps(momentum):
    """The sum of (1 - momentum)^k g is the mean's 1 / momentum fold, and directions have no size."""
    matrices = {"kernel": (4, 3), "wide": (3, 6)}
    for norm, eps in (("rownorm", 1e-8), ("sign", 0.0)):
        light = gradtx.chain(
            gradtx.trace(1 - momentum),
            gradtx.scale_by_lmo(norm, eps=eps),
            gradtx.add_decayed_weights(1.0),
            gradtx.scale_by_learning_rate(0.1),
        )
        check_same(gradtx.scion(0.1, 1 - momentum, norm, eps=eps * momentum), light, shapes=matrices)


@pytest.mark.parametrize(
    ("arguments", "said"), [({"beta": 1.0}, "beta|decay"), ({"norm": "max"}, "norm"), ({"eps": -1.0}, "eps")]
)
def test_an_argument_out_of_range_is_an_error_that_names_it(arguments, said):
    with pytest.raises(ValueError, match=said):
        gradtx.scion(1e-3, **arguments)

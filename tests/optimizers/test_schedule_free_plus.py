"""schedule_free_plus: Defazio 2026 (arXiv 2605.19095), as the authors' AdamCScheduleFreePlusPaper."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check


def with_value(tx):
    """The same, given the loss that the rule below knows."""
    loss = lambda p: 30 + sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(p))
    return gradtx.GradientTransformation(tx.init, lambda g, state, p: tx.update(g, state, p, value=loss(p)))


def plus(
    lr=1.0, b1=0.9, b2=0.95, sf=0.9, eps=1e-8, decay=0.0, r=0.0, power=2.0, beta=0.0, c_warmup=0, anneal=0, last=0.965
):
    """x, y and z kept; the rate is of all leaves, so the rule holds the whole tree."""

    def rule(first):
        x, z = dict(first), dict(first)
        m, v = ({k: np.zeros_like(p) for k, p in first.items()} for _ in range(2))
        e = total = largest = 0.0

        def step(grads, y, t):
            nonlocal e, total, largest
            done = min((t - 1) / anneal, 1) if anneal else 0
            s = 1 - (1 - sf) ** (1 - done) * (1 - last) ** done
            along = sum(np.sum((g.conj() * (z[k] - x[k])).real) for k, g in grads.items())
            value = 30 + sum(np.sum(np.abs(p) ** 2) for p in y.values())
            l1 = sum(np.sum(np.abs(g)) for g in grads.values())
            e = beta * e + (1 - beta) * l1 * np.sqrt(np.pi / 2)
            rate = lr * max(0, value + s * along) / (e / (1 - beta**t))
            largest = max(largest, rate)
            c = 1.0
            if t > c_warmup:
                weight = t**r * largest**power
                total += weight
                c = weight / total
            updates = {}
            for k, g in grads.items():
                m[k], v[k] = b1 * m[k] + (1 - b1) * g, b2 * v[k] + (1 - b2) * np.abs(g) ** 2
                u = m[k] / (1 - b1**t) / (np.sqrt(v[k] / (1 - b2**t)) + eps)
                z[k] = z[k] - rate**2 * decay * y[k] - rate * u
                x[k] = (1 - c) * x[k] + c * z[k]
                updates[k] = s * x[k] + (1 - s) * z[k] - y[k]
            return updates

        return step

    return rule


ALL = {"weight_decay": 0.1, "r": 1.0, "polyak_beta": 0.5, "c_warmup": 3, "sf_b1_anneal_steps": 5, "eps": 0.1}
THEIRS = {"decay": 0.1, "r": 1.0, "beta": 0.5, "c_warmup": 3, "anneal": 5, "eps": 0.1}


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"learning_rate": 0.1}, {"lr": 0.1}),
        ({"learning_rate": 0.1} | ALL, {"lr": 0.1} | THEIRS),
        (
            {"learning_rate": 0.1, "b1": 0.0, "b2": 0.5, "sf_b1": 0.0, "weight_lr_power": 0.0},
            {"lr": 0.1, "b1": 0.0, "b2": 0.5, "sf": 0.0, "power": 0.0},
        ),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    # float32: the rate is a ratio of sums with many signs, and later ones are of parameters that it has moved
    tolerance = 1e-4 if precision == "float32" else None
    check(with_value(gradtx.schedule_free_plus(**options)), plus(**theirs), precision, tolerance=tolerance)


def test_complex_parameters_are_pairs_of_reals():
    tx = with_value(gradtx.schedule_free_plus(0.1, **ALL))
    check(tx, plus(0.1, **THEIRS), complex_leaves=("dense/kernel",))


def test_x_is_the_mean_of_the_iterates_and_found_in_a_chain():
    tx = gradtx.chain(gradtx.identity(), gradtx.schedule_free_plus(0.1, weight_lr_power=0.0))
    p = jnp.array([1.0, -2.0], jnp.bfloat16)
    state, zs = tx.init(p), []
    for _ in range(5):
        u, state = tx.update(p, state, p, value=jnp.sum(p**2))
        p = gradtx.apply_updates(p, u)
        zs.append(state["schedule_free_plus"].z)
    np.testing.assert_allclose(state["schedule_free_plus"].x, np.mean(zs, axis=0), rtol=1e-5)  # five roundings
    assert gradtx.eval_params(tx, state, p).dtype == jnp.bfloat16


def test_the_step_ends_where_the_loss_is_zero():
    tx = gradtx.schedule_free_plus()
    p = jnp.array([1.0, -1.0])
    u, state = tx.update(p, tx.init(p), p, value=0.0)
    np.testing.assert_allclose(u, 0, atol=1e-6)  # s x + (1 - s) z - y of three equal numbers
    assert state.max_lr == 0


def test_errors_name_what_is_wrong():
    tx, p = gradtx.schedule_free_plus(), jnp.ones(2)
    with pytest.raises(ValueError, match="`schedule_free_plus` reads the loss"):
        tx.update(p, tx.init(p), p)
    with pytest.raises(ValueError, match="`schedule_free_plus` reads the parameters"):
        tx.update(p, tx.init(p), value=1.0)
    with pytest.raises(ValueError, match=r"`schedule_free_plus`: sf_b1 must .*, got 1\.0"):
        gradtx.schedule_free_plus(sf_b1=1.0)

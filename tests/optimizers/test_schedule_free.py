"""schedule_free, schedule_free_sgd, schedule_free_adamw: Defazio et al. 2024, Algorithm 1 (arXiv 2405.15682)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, data, leafwise, run_tx

eval_params = gradtx.eval_params


def schedule_free(base, rates, b1=0.9, power=2.0, r=0.0, at_z=False):
    """x, y and z as the paper has them, x kept: z' = z + step, x' = (1 - c) x + c z', y' = (1 - b1) z' + b1 x'.

    `base(p)` returns `step(g, y, t)`; `rates(t)` is the rate that weights step t, and c_t = w_t / (w_1 + ... + w_t).
    """

    @leafwise
    def rule(p):
        step, x, z, total, largest = base(p), p, p, 0.0, 0.0

        def update(g, y, t):
            nonlocal x, z, total, largest
            z = z + step(g, z if at_z else y, t)
            largest = max(largest, rates(t))
            weight = t**r * largest**power
            total += weight
            c = weight / total if total else 0.0
            x = (1 - c) * x + c * z
            return (1 - b1) * z + b1 * x - y

        return update

    return rule


def descent(rate, decay=0.0):
    return lambda p: lambda g, y, t: -rate(t) * (g + decay * y)


def adamw(rate, b2=0.999, eps=1e-8, decay=0.0):
    def start(p):
        v = np.zeros(p.shape)

        def step(g, y, t):
            nonlocal v
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            return -rate(t) * (g / (np.sqrt(v / (1 - b2**t)) + eps) + decay * y)

        return step

    return start


def constant(rate):
    return lambda t: rate


def warm(peak, steps, ahead=0):
    """At the t-th step, of which the schedule's count is t - 1."""
    return lambda t: peak * min((t - 1 + ahead) / steps, 1)


@both_precisions
@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, schedule_free(descent(constant(1.0)), constant(1.0))),
        ({"learning_rate": 0.1, "b1": 0.5}, schedule_free(descent(constant(0.1)), constant(0.1), 0.5)),
        ({"learning_rate": 0.1, "b1": 1.0}, schedule_free(descent(constant(0.1)), constant(0.1), 1.0)),
        ({"learning_rate": 0.1, "weight_decay": 0.3}, schedule_free(descent(constant(0.1), 0.3), constant(0.1))),
        # the weights are those of the authors' warmup, (k + 1) / steps; the base's own schedule starts at 0
        (
            {"learning_rate": 0.1, "warmup_steps": 5},
            schedule_free(descent(warm(0.1, 5)), warm(0.1, 5, ahead=1)),
        ),
        (
            {"learning_rate": 0.1, "warmup_steps": 5, "weight_lr_power": 0.0},
            schedule_free(descent(warm(0.1, 5)), warm(0.1, 5, ahead=1), power=0.0),
        ),
    ],
)
def test_sgd_is_the_papers_formula(options, rule, precision):
    check(gradtx.schedule_free_sgd(**options), rule, precision)


@both_precisions
@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, schedule_free(adamw(constant(0.0025)), constant(0.0025))),
        (
            {"learning_rate": 0.1, "b1": 0.5, "b2": 0.9, "eps": 0.1, "weight_decay": 0.3},
            schedule_free(adamw(constant(0.1), 0.9, 0.1, 0.3), constant(0.1), 0.5),
        ),
        (
            {"learning_rate": 0.1, "warmup_steps": 4, "b2": 0.9, "weight_lr_power": 1.0},
            schedule_free(adamw(warm(0.1, 4), 0.9), warm(0.1, 4, ahead=1), power=1.0),
        ),
    ],
)
def test_adamw_is_the_papers_formula(options, rule, precision):
    # float32: by default a step is 1e-3 of the parameters, in whose rounding, 6e-8, x is carried on
    check(gradtx.schedule_free_adamw(**options), rule, precision, tolerance=1e-4 if precision == "float32" else None)


def mean_corrected(rate, b1, b2=0.999, eps=1e-8, decay=0.0):
    """AdamW with a first moment."""

    def start(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, y, t):
            nonlocal m, v
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * np.abs(g) ** 2
            return -rate(t) * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * y)

        return step

    return start


def rate_corrected(rate, b2=0.999, eps=1e-8, decay=0.0):
    """The paper's pseudocode: v keeps its bias, `rate` takes it away."""

    def start(p):
        v = np.zeros(p.shape)

        def step(g, y, t):
            nonlocal v
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            return -rate(t) * (g / (np.sqrt(v) + eps) + decay * y)

        return step

    return start


def rectified(b2, else_times):
    """RAdam's factor at step t, and whether rho has reached 4."""
    longest = 2 / (1 - b2) - 1

    def at(t):
        rho = longest - 2 * t * b2**t / (1 - b2**t)
        if rho < 4:
            return else_times, False
        return np.sqrt((rho - 4) * (rho - 2) * longest / ((longest - 4) * (longest - 2) * rho)), True

    return at


def radam(rate, b2=0.999, eps=1e-8, decay=0.0, else_times=0.0):
    factor = rectified(b2, else_times)

    def start(p):
        v = np.zeros(p.shape)

        def step(g, y, t):
            nonlocal v
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            r, trusted = factor(t)
            return -rate * r * ((g / (np.sqrt(v / (1 - b2**t)) + eps) if trusted else g) + decay * y)

        return step

    return start


paper_rate = lambda t: 0.01 * min(t / 4, 1) * np.sqrt(1 - 0.9**t)
MORE = {
    "r": (gradtx.schedule_free_sgd, {"r": 2.0}, schedule_free(descent(constant(1.0)), constant(1.0), r=2.0)),
    "decay at z": (
        gradtx.schedule_free_sgd,
        {"learning_rate": 0.1, "weight_decay": 0.5, "decay_at_z": True},
        schedule_free(descent(constant(0.1), 0.5), constant(0.1), at_z=True),
    ),
    "the authors' warmup": (
        gradtx.schedule_free_sgd,
        {"learning_rate": 0.1, "warmup_steps": 5, "one_rate": True},
        schedule_free(descent(warm(0.1, 5, ahead=1)), warm(0.1, 5, ahead=1)),
    ),
    "adamw": (
        gradtx.schedule_free_adamw,
        {"learning_rate": 0.1, "b2": 0.9, "weight_decay": 0.3, "decay_at_z": True, "r": 1.0},
        schedule_free(adamw(constant(0.1), 0.9, decay=0.3), constant(0.1), r=1.0, at_z=True),
    ),
    "inner momentum": (
        gradtx.schedule_free_adamw,
        {"learning_rate": 0.1, "b2": 0.9, "inner_momentum": 0.5, "weight_decay": 0.3},
        schedule_free(mean_corrected(constant(0.1), 0.5, 0.9, decay=0.3), constant(0.1)),
    ),
    "the paper's pseudocode": (
        gradtx.schedule_free_adamw,
        {"learning_rate": 0.01, "warmup_steps": 4, "b2": 0.9, "weight_decay": 0.3, "correct_rate": True},
        schedule_free(rate_corrected(paper_rate, 0.9, decay=0.3), paper_rate),
    ),
    "radam": (
        gradtx.schedule_free_radam,
        {"learning_rate": 0.1, "b2": 0.9, "weight_decay": 0.3},
        schedule_free(radam(0.1, 0.9, decay=0.3), lambda t: 0.1 * rectified(0.9, 0.0)(t)[0]),
    ),
    "radam that begins with gradient descent": (
        gradtx.schedule_free_radam,
        {"learning_rate": 0.1, "silent_sgd_phase": False},
        schedule_free(radam(0.1, else_times=1.0), lambda t: 0.1 * rectified(0.999, 1.0)(t)[0]),
    ),
}


@pytest.mark.parametrize("store_x", [False, True])
@pytest.mark.parametrize(("method", "options", "rule"), MORE.values(), ids=MORE)
def test_what_the_authors_code_has_besides(method, options, rule, store_x):
    check(method(**options, store_x=store_x), rule)


@both_precisions
@pytest.mark.parametrize("b1", [0.0, 0.5, 1.0])
def test_stored_x_is_the_papers_and_b1_may_be_zero(b1, precision):
    base = schedule_free(descent(constant(0.1), 0.3), constant(0.1), b1)
    check(gradtx.schedule_free_sgd(0.1, b1=b1, weight_decay=0.3, store_x=True), base, precision)


def test_stored_x_does_not_know_of_the_roundings_of_y():
    """Parameters in bfloat16, small steps: x found from a rounded y is off by its rounding; the stored one is not."""
    p, steps = jnp.full(1, 100.0, jnp.bfloat16), 50
    found, stored = (gradtx.schedule_free_sgd(1e-3, b1=0.5, store_x=stores) for stores in (False, True))
    errors = []
    for tx in (found, stored):
        y, state, zs = p, tx.init(p), []
        for _ in range(steps):
            u, state = tx.update(jnp.ones_like(y), state, y)
            y = gradtx.apply_updates(y, u)
            zs.append(float(state.z[0]))
        x = state.x[0] if tx is stored else (y.astype(jnp.float32) - 0.5 * state.z)[0] / 0.5
        errors.append(abs(float(x) - np.mean(zs)))
    assert errors[1] < 1e-4 < 1e-2 < errors[0]
    assert eval_params(stored, state, y).dtype == jnp.bfloat16


def test_complex_parameters_are_pairs_of_reals():
    rule = schedule_free(descent(constant(0.1), 0.3), constant(0.1))
    check(gradtx.schedule_free_sgd(0.1, weight_decay=0.3), rule, complex_leaves=("dense/kernel",))


def test_with_a_changing_b1_x_is_still_the_mean():
    b1s = [0.2, 0.9, 0.5, 1.0, 0.3, 0.7]
    tx = gradtx.schedule_free(gradtx.sgd(0.1), 0.1, lambda t: jnp.asarray(b1s)[t])
    with jax.enable_x64(True):
        y = z = x = np.array([1.0, -2.0])
        p = jnp.asarray(y)
        state = tx.init(p)
        for t, b1 in enumerate(b1s, start=1):
            g = y + t
            z = z - 0.1 * g
            x = x + (z - x) / t
            y = (1 - b1) * z + b1 * x
            updates, state = tx.update(p + t, state, p)
            p = gradtx.apply_updates(p, updates)
            np.testing.assert_allclose(p, y, rtol=1e-12)  # rounding alone
            np.testing.assert_allclose(eval_params(tx, state, p), x, rtol=1e-12)


def trained(tx, p, steps=10):
    def step(carry, t):
        p, state = carry
        updates, state = tx.update(jax.tree.map(lambda p: p / 2 + jnp.cos(t), p), state, p)
        return (gradtx.apply_updates(p, updates), state), None

    return jax.lax.scan(step, (p, tx.init(p)), jnp.arange(steps, dtype=jnp.float32))[0]


P = {"a": jnp.array([1.0, -2.0]), "b": {"c": jnp.array(0.5)}}
SF = gradtx.schedule_free_sgd(0.1, b1=0.7)


def test_the_mean_of_the_iterates_is_what_is_evaluated():
    p, state, zs = P, SF.init(P), []
    for t in range(6):
        updates, state = SF.update(jax.tree.map(lambda p, t=t: p + t, p), state, p)
        p = gradtx.apply_updates(p, updates)
        zs.append(state.z)
    x = eval_params(SF, state, p)
    mean = jax.tree.map(lambda *z: sum(z) / len(z), *zs)  # with a constant rate all weights are equal
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), x, mean)  # some roundings, over b1
    jax.tree.map(np.testing.assert_array_equal, gradtx.schedule_free_eval_params(state, p), x)


AROUND = {
    "chain": lambda sf: gradtx.chain(gradtx.clip(10.0), sf),
    "chain in a chain": lambda sf: gradtx.named_chain(("first", gradtx.chain(gradtx.identity(), sf))),
    "mask": lambda sf: gradtx.masked(sf, True),
    "partition": lambda sf: gradtx.partition({0: sf, 1: sf}, {"a": 0, "b": 1}),
    "accumulation": lambda sf: gradtx.MultiSteps(sf, 1),
    "guard": lambda sf: gradtx.apply_if_finite(sf),
    "condition": lambda sf: gradtx.conditionally_transform(sf, lambda step: step >= 0),
    "monitor": lambda sf: gradtx.monitor(sf),
    "injected": lambda sf: gradtx.inject_hyperparams(gradtx.schedule_free_sgd)(learning_rate=0.1, b1=0.7),
    "chain with more": lambda sf: gradtx.chain(sf, gradtx.identity()),
}


@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
def test_x_is_found_through_what_stands_around(around):
    p, state = trained(SF, P)
    want = eval_params(SF, state, p)
    tx = around(SF)
    p, state = trained(tx, P)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)  # another program: other roundings, over b1
    jax.tree.map(close, eval_params(tx, state, p), want)
    jax.tree.map(close, gradtx.schedule_free_eval_params(state, p), want)
    jax.tree.map(close, jax.jit(lambda s, p: eval_params(tx, s, p))(state, p), want)


def test_a_mask_leaves_the_other_parameters_as_they_are():
    tx = gradtx.chain(gradtx.masked(SF, "a"), gradtx.freeze("b"))
    p, state = trained(tx, P)
    x = eval_params(tx, state, p)
    assert np.any(x["a"] != p["a"]) and x["b"]["c"] is p["b"]["c"]


def test_accumulated_gradients_make_one_step():
    tx = gradtx.MultiSteps(SF, 2)
    p, state = P, tx.init(P)
    alone, its_state = P, SF.init(P)
    for t in range(8):
        updates, state = tx.update(jax.tree.map(jnp.ones_like, p), state, p)
        p = gradtx.apply_updates(p, updates)
        if t % 2:
            updates, its_state = SF.update(jax.tree.map(jnp.ones_like, p), its_state, alone)
            alone = gradtx.apply_updates(alone, updates)
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)  # a branch is compiled, the other is not
    jax.tree.map(same, eval_params(tx, state, p), eval_params(SF, its_state, alone))


def test_optaxs_state_is_evaluated_too():
    optax = pytest.importorskip("optax")
    p = jnp.array([1.0, 2.0])
    theirs = optax.chain(optax.clip(1.0), optax.contrib.schedule_free_sgd(0.1))
    updates, state = theirs.update(p, theirs.init(p), p)
    y = p + updates
    want = optax.contrib.schedule_free_eval_params(state[1], y)
    np.testing.assert_allclose(gradtx.schedule_free_eval_params(state, y), want, rtol=1e-6)


def test_sums_do_not_stall_with_parameters_of_few_digits():
    """At bfloat16 a sum of equal weights stops at 256 of them, and with it the mean becomes a running one."""
    p = jnp.zeros(1, jnp.bfloat16)
    tx = gradtx.schedule_free_sgd(1e-3)

    def step(state, _):
        return tx.update(jnp.zeros_like(p), state, p)[1], None

    state, _ = jax.lax.scan(step, tx.init(p), length=3000)
    assert state.z.dtype == jnp.float32 and state.weight_sum.dtype == jnp.float32
    np.testing.assert_allclose(state.weight_sum, 3000 * 1e-6, rtol=1e-4)  # 3000 roundings of 6e-8
    assert eval_params(tx, state, p).dtype == jnp.bfloat16


def test_small_steps_of_z_are_not_lost_with_parameters_of_few_digits():
    p, steps = jnp.ones(1, jnp.bfloat16), 100
    tx = gradtx.schedule_free_sgd(1e-4)  # below bfloat16's distance of numbers at 1, 0.004
    state = tx.init(p)
    for _ in range(steps):
        _, state = tx.update(jnp.ones_like(p), state, p)
    np.testing.assert_allclose(state.z, 1 - steps * 1e-4, rtol=1e-5)
    stored = gradtx.schedule_free_sgd(1e-4, state_dtype=jnp.bfloat16)
    assert stored.init(p).z.dtype == jnp.bfloat16


def test_fresh_state_may_be_donated_with_the_parameters():
    p = {"a": jnp.arange(3.0), "b": jnp.array(1.0)}
    tx = gradtx.schedule_free_adamw()
    state = tx.init(p)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((p, state))]
    assert len(set(pointers)) == len(pointers)

    def step(p, state):
        updates, state = tx.update(p, state, p)
        return gradtx.apply_updates(p, updates), state

    p, state = jax.jit(step, donate_argnums=(0, 1))(p, state)
    jax.jit(step, donate_argnums=(0, 1))(p, state)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_state_of_shapes_is_like_that_of_arrays(dtype):
    tx = gradtx.schedule_free_adamw(state_dtype=dtype)
    shapes = jax.eval_shape(lambda: P)
    like = lambda x: (x.shape, x.dtype, x.weak_type)
    want = jax.tree.map(like, tx.init(P))
    assert jax.tree.map(like, tx.init(shapes)) == jax.tree.map(like, jax.eval_shape(tx.init, shapes)) == want


def test_a_rate_of_zero_moves_nothing():
    p, state = trained(gradtx.schedule_free_sgd(0.0), P)
    jax.tree.map(np.testing.assert_array_equal, p, P)
    assert state.weight_sum == 0
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6)  # (y - 0.1 y) / 0.9
    jax.tree.map(close, gradtx.schedule_free_eval_params(state, p), P)


def test_no_warmup_of_zero_steps():
    params, drift = data()
    a, b = (run_tx(gradtx.schedule_free_sgd(0.1, n), params, drift, "float32")[1] for n in (0, None))
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_rate_that_falls_counts_as_the_largest():
    tx = gradtx.schedule_free(gradtx.sgd(0.1), gradtx.linear_schedule(1.0, 0.0, 4))
    _, state = trained(tx, P, 3)
    assert state.max_lr == 0.75 and state.step_count == 4  # read at 1 first


def test_extra_arguments_reach_the_base_and_its_schedules_live_by_the_count():
    seen = []

    def update(updates, state, params=None, *, batch, **extra):
        seen.append(batch)
        return updates, state

    p = jnp.ones(2)
    tx = gradtx.schedule_free(gradtx.GradientTransformation(lambda p: (), update), 0.1)
    tx.update(p, tx.init(p), p, batch="this")
    assert seen and set(seen) == {"this"}
    timed = gradtx.schedule_free(gradtx.trace(lambda t: 0.5 * t), 0.1)
    _, state = timed.update(p, timed.init(p), p)
    _, state = timed.update(p, state, p)
    np.testing.assert_array_equal(state.base_optimizer_state.trace, np.full(2, 1.5))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`schedule_free`: b1 must lie in .*, got 0\.0"):
        gradtx.schedule_free_sgd(b1=0.0)
    with pytest.raises(TypeError, match="`schedule_free`: base_optimizer must be a gradient transformation"):
        gradtx.schedule_free(0.1, 0.1)
    with pytest.raises(ValueError, match="`schedule_free` reads the parameters"):
        SF.update(P, SF.init(P))
    with pytest.raises(ValueError, match="`scale_by_trusted_rms`: it counts with"):
        gradtx.scale_by_trusted_rms()
    with pytest.raises(ValueError, match="inner_momentum corrects v, and correct_rate does not"):
        gradtx.schedule_free_adamw(0.1, inner_momentum=0.9, correct_rate=True)
    with pytest.raises(ValueError, match=r"`schedule_free_eval_params`: the state, a dict, has no ScheduleFreeState"):
        gradtx.schedule_free_eval_params(gradtx.adam(0.1).init(P), P)

"""average_params: Polyak and Juditsky 1992, Izmailov et al. 2018, exponential moving averages; to evaluate with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

P = {"w": jnp.array([[1.0, -2.0], [3.0, 0.5]]), "b": jnp.array(0.5)}
INNER = gradtx.sgd(0.1, momentum=0.5)


def grads(p, t):
    return jax.tree.map(lambda x: x / 4 + jnp.cos(t + x), p)


def walked(tx, steps, p=P, dtype="float64"):
    """Parameters after each step, and what is evaluated; at first, too."""
    with jax.enable_x64(dtype == "float64"):
        p = jax.tree.map(lambda x: jnp.asarray(x, dtype), p)
        state = tx.init(p)
        way, evaluated = [p], [gradtx.eval_params(tx, state, p)]
        for t in range(steps):
            updates, state = tx.update(grads(p, t), state, p)
            p = gradtx.apply_updates(p, updates)
            way.append(p)
            evaluated.append(gradtx.eval_params(tx, state, p))
        stack = lambda trees: jax.tree.map(lambda *xs: np.stack([np.asarray(x, np.float64) for x in xs]), *trees)
        return stack(way), stack(evaluated)


def moving(way, decay, debias=False, warmup=None, gamma=1.0, start=1, every=1, share=1.0):
    """The average as it is defined, of all parameters so far anew."""
    found = []
    for t in range(len(way)):
        counted = [way[i] for i in range(start, t + 1, every)]
        average, mass = way[min(t, start - 1)], 0.0
        for n, p in enumerate(counted, 1):
            d = decay(n - 1) if callable(decay) else decay
            d = 1 - 1 / n if d is None else d
            c = 1 - d
            mass = 1 - d**n
            if debias:
                c = (1 - d) / mass
            if warmup is not None:
                c = max(c, (1 + (n - 1) / gamma) ** -warmup)
            average = (1 - c) * average + c * p
        found.append((1 - share) * way[t] + share * average)
    return np.stack(found)


FORMS = {
    "mean": {"decay": None},
    "tail": {"decay": None, "start": 4},
    "every": {"decay": None, "start": 2, "every": 3},
    "ema": {"decay": 0.8},
    "ema later": {"decay": 0.8, "start": 3, "every": 2},
    "debiased": {"decay": 0.8, "debias": True},
    "debiased later": {"decay": 0.8, "debias": True, "start": 3},
    "timm": {"decay": 0.9, "warmup": 2 / 3},
    "timm slower": {"decay": 0.9, "warmup": 0.75, "warmup_steps": 3.0, "start": 2},
    "tensorflow": {"decay": lambda n: min(0.7, (2 + n) / (11 + n))},
    "readout": {"decay": 0.9, "share": 0.6},
    "all of it": {"decay": 1.0},
    "none of it": {"decay": 0.0, "debias": True},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_average_is_that_of_the_parameters(form, op_by_op):
    options = dict(FORMS[form])
    decay = options.pop("decay")
    if callable(decay):
        scheduled = lambda n: jnp.minimum(0.7, (2.0 + n) / (11.0 + n))
        tx = gradtx.average_params(INNER, scheduled, **options)
    else:
        tx = gradtx.average_params(INNER, decay, **options)
    way, evaluated = walked(tx, 12)
    gamma = options.pop("warmup_steps", 1.0)
    for name in P:
        want = moving(way[name], decay, gamma=gamma, **options)
        # float64; what comes of counts is weakly typed, and so float64 with it
        np.testing.assert_allclose(evaluated[name], want, rtol=1e-12)


def test_debiased_it_is_the_weighted_mean_of_the_parameters_alone(op_by_op):
    way, evaluated = walked(gradtx.average_params(INNER, 0.8, debias=True), 6)
    weights = 0.8 ** np.arange(5, -1, -1)
    np.testing.assert_allclose(evaluated["w"][-1], np.tensordot(weights / weights.sum(), way["w"][1:], 1), rtol=1e-12)


def test_warmed_up_with_power_one_it_is_the_mean_at_first(op_by_op):
    mean = walked(gradtx.average_params(INNER), 8)[1]
    warm = walked(gradtx.average_params(INNER, 0.999, warmup=1.0), 8)[1]
    np.testing.assert_allclose(warm["w"], mean["w"], rtol=1e-12)


@pytest.mark.parametrize(
    "options", [{"decay": 0.9}, {"every": 2}, {"decay": 0.5, "average_dtype": "bfloat16"}], ids=str
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_updates_are_those_inside_to_the_bit(options, dtype, op_by_op):
    for inner in (INNER, gradtx.adamw(0.1), gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lion(0.01))):
        alone = walked(inner, 5, dtype=dtype)[0]
        jax.tree.map(
            np.testing.assert_array_equal, walked(gradtx.average_params(inner, **options), 5, dtype=dtype)[0], alone
        )


def test_what_the_mask_leaves_out_is_evaluated_as_it_is(op_by_op):
    tx = gradtx.average_params(INNER, 0.9, mask="w")
    assert tx.init(P).average["b"] is None
    way, evaluated = walked(tx, 5)
    np.testing.assert_array_equal(evaluated["b"], way["b"])
    np.testing.assert_allclose(evaluated["w"], moving(way["w"], 0.9), rtol=1e-12)


def test_the_average_of_bfloat16_parameters_is_wide_and_of_what_is_stored(op_by_op):
    tx = gradtx.average_params(gradtx.sgd(1e-3), 0.99)
    p = {"w": jnp.full(3, 1.0, jnp.bfloat16)}
    state = tx.init(p)
    for _ in range(5):  # steps too small to be stored
        updates, state = tx.update({"w": jnp.ones(3, jnp.bfloat16)}, state, p)
        p = gradtx.apply_updates(p, updates)
    assert state.average["w"].dtype == jnp.float32
    np.testing.assert_allclose(state.average["w"], 1.0, rtol=1e-6)
    assert gradtx.eval_params(tx, state, p)["w"].dtype == jnp.bfloat16


def test_it_may_be_stored_narrower_or_wider():
    narrow = gradtx.average_params(INNER, 0.9, average_dtype="bfloat16").init(P)
    assert narrow.average["w"].dtype == jnp.bfloat16
    with jax.enable_x64(True):
        p = jax.tree.map(lambda x: x.astype(jnp.float32), P)
        tx = gradtx.average_params(INNER, 0.9, average_dtype="float64")
        _, state = tx.update(p, tx.init(p), p)
        assert state.average["w"].dtype == jnp.float64
        assert gradtx.eval_params(tx, state, p)["w"].dtype == jnp.float32


def test_what_is_averaged_is_what_the_method_inside_evaluates_with(op_by_op):
    uphill = gradtx.chain(gradtx.normalize(), gradtx.sgd(0.5))
    sam = gradtx.sam(gradtx.sgd(0.1), uphill)
    _, homes = walked(sam, 8)
    _, evaluated = walked(gradtx.average_params(sam, 0.8), 8)
    np.testing.assert_allclose(evaluated["w"], moving(homes["w"], 0.8), rtol=1e-12)


def test_it_passes_through_what_stands_around(op_by_op):
    tx = gradtx.average_params(INNER, 0.8)
    want = walked(tx, 4)[1]
    for around in (gradtx.monitor(tx), gradtx.chain(tx), gradtx.apply_if_finite(tx), gradtx.masked(tx, True)):
        np.testing.assert_allclose(walked(around, 4)[1]["w"], want["w"], rtol=1e-12)


def test_parameters_without_a_gradient_are_averaged_too(op_by_op):
    tx = gradtx.average_params(INNER, 0.5, debias=True)
    p, state = P, tx.init(P)
    for _ in range(3):
        updates, state = tx.update({"w": P["w"], "b": None}, state, p)
        p = gradtx.apply_updates(p, updates)
    assert gradtx.eval_params(tx, state, p)["b"] == P["b"]


def test_it_compiles_once_and_evaluates_compiled():
    tx = gradtx.average_params(gradtx.adamw(0.1), 0.9, start=2)
    traces = []

    @jax.jit
    def step(state, p):
        traces.append(state)
        return tx.update(grads(p, 0.0), state, p)

    state = tx.init(P)
    _, state = step(state, P)
    _, state = step(state, P)
    assert len(traces) == 1
    compiled = jax.jit(lambda state, p: gradtx.eval_params(tx, state, p))(state, P)
    jax.tree.map(np.testing.assert_array_equal, compiled, gradtx.eval_params(tx, state, P))


def test_the_average_has_memory_of_its_own():
    state = gradtx.average_params(gradtx.sgd(0.1)).init(P)
    assert state.average["w"].unsafe_buffer_pointer() != P["w"].unsafe_buffer_pointer()


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`average_params`: decay must .*, got 1.5"):
        gradtx.average_params(INNER, 1.5)
    with pytest.raises(ValueError, match=r"`average_params`: start must .*, got 0"):
        gradtx.average_params(INNER, start=0)
    with pytest.raises(ValueError, match=r"`average_params`: share must .*, got -1"):
        gradtx.average_params(INNER, share=-1)
    with pytest.raises(ValueError, match="`average_params` reads the parameters"):
        gradtx.average_params(INNER).update(P, gradtx.average_params(INNER).init(P))
    with pytest.raises(ValueError, match="`average_params`: the mask's pattern 'x' matches none"):
        gradtx.average_params(INNER, mask="x").init(P)

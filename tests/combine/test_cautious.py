"""cautious: Liang et al. 2024 (arXiv 2411.16085), and the codes that follow it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, data, leafwise, run_tx

HEAVY = gradtx.trace(0.9)


def masked(rescale="mean", least=1e-3, factor=0.0, decay=0.9):
    """m = decay m + g; w = 1 where m and g have one sign, else factor; m w / s. A complex entry counts as two reals."""

    @leafwise
    def rule(p):
        m = np.zeros_like(p)

        def step(g, p, t):
            nonlocal m
            m = decay * m + g
            w = np.where((np.conj(m) * g).real > 0, 1.0, factor)
            if rescale == "mean":
                w = w / (max(np.mean(w), least) or 1.0)
            elif rescale == "count":
                w = w * w.size / (np.sum(w) + 1)
            return -0.1 * m * w

        return step

    return rule


def downhill(tx):
    return gradtx.chain(tx, gradtx.scale_by_learning_rate(0.1))


OPTIONS = [{}, {"least": 0.75}, {"factor": 0.25}, {"rescale": "count"}, {"rescale": None}, {"least": 0.0}]


@both_precisions
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_entries_that_disagree_are_left_out_and_made_up_for(options, precision):
    check(downhill(gradtx.cautious(HEAVY, **options)), masked(**options), precision)


def test_complex_entries_agree_by_their_scalar_product():
    check(downhill(gradtx.cautious(HEAVY)), masked(), complex_leaves=("dense/kernel",))
    check(gradtx.cautious(downhill(HEAVY), of_steps=True), masked(), complex_leaves=("dense/kernel",))


def test_some_entries_disagree_here():
    """Or the tests above prove nothing."""
    params, drift = data()
    left_out = run_tx(downhill(gradtx.cautious(HEAVY, rescale=None)), params, drift, "float64")[0]
    assert 0.1 < np.mean(left_out["dense/kernel"] == 0) < 0.9


def test_of_steps_it_is_the_same():
    check_same(gradtx.cautious(downhill(HEAVY), of_steps=True), downhill(gradtx.cautious(HEAVY)))


def test_least_and_factor_follow_schedules_of_the_chain():
    tx = downhill(gradtx.cautious(HEAVY, factor=lambda t: jnp.where(t < 3, 1.0, 0.25)))
    params, drift = data()
    scheduled, plain, late = (
        run_tx(x, params, drift, "float64")[0]["dense/kernel"]
        for x in (tx, downhill(HEAVY), downhill(gradtx.cautious(HEAVY, factor=0.25)))
    )
    np.testing.assert_array_equal(scheduled[:3], plain[:3])
    assert np.all(scheduled[3] != plain[3])  # and from there on the parameters differ
    assert np.any(scheduled[:3] != late[:3])


@pytest.mark.parametrize("inner", [gradtx.identity(), gradtx.scale_by_adam(0.0), gradtx.scale_by_sign()], ids=repr)
@pytest.mark.parametrize("rescale", ["mean", None])
def test_where_all_agree_no_bit_changes(inner, rescale):
    rng = np.random.default_rng(0)
    g = {"a": jnp.asarray(rng.normal(size=(70, 30)) * 1e-30, jnp.float32), "b": jnp.asarray(rng.normal(size=7))}
    tx = gradtx.cautious(inner, rescale=rescale)
    got, _ = tx.update(g, tx.init(g))
    want, _ = inner.update(g, inner.init(g))
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_with_factor_one_it_is_the_method_inside():
    check_same(downhill(gradtx.cautious(HEAVY, factor=1.0)), downhill(HEAVY), tolerance=0)


def test_its_state_is_the_one_inside():
    p = {"w": jnp.ones(3)}
    adam = gradtx.scale_by_adam()
    assert jax.tree.structure(gradtx.cautious(adam).init(p)) == jax.tree.structure(adam.init(p))
    in_chain = gradtx.chain(gradtx.cautious(gradtx.scale(0.5)), gradtx.clip(1.0))
    assert in_chain.init(p).keys() == {"count"}
    averaging = gradtx.average_params(gradtx.sgd(0.1), share=0.5)
    state = averaging.init(p)._replace(count=jnp.array(2), average={"w": jnp.zeros(3)})
    evaluated = gradtx.eval_params(gradtx.cautious(averaging, of_steps=True), state, p)["w"]
    np.testing.assert_array_equal(evaluated, gradtx.eval_params(averaging, state, p)["w"])
    assert np.all(evaluated != 1)


def test_a_gradient_of_zero_makes_zeros():
    g = {"a": jnp.zeros(3), "none": jnp.zeros((0, 2)), "no gradient": None}
    for options in OPTIONS:
        tx = gradtx.cautious(gradtx.identity(), **options)
        u, _ = tx.update(g, tx.init(g))
        np.testing.assert_array_equal(u["a"], np.zeros(3))
        assert u["no gradient"] is None


def test_another_slot_of_the_state_may_be_compared():
    """The mean has another sign than its look ahead where the gradient has turned."""
    looking = gradtx.ema(0.9, debias=False, nesterov=True)
    tx = gradtx.cautious(looking, compare="ema", rescale=None)
    g = {"w": jnp.array([1.0, 1.0]), "frozen": None}
    state = tx.init({"w": jnp.ones(2), "frozen": jnp.ones(2)})
    _, state = tx.update(g, state)
    u, state = tx.update({"w": jnp.array([-0.5, -2.0]), "frozen": None}, state)
    np.testing.assert_allclose(state.ema["w"], [0.04, -0.11], rtol=1e-5)  # of 0.1: float32
    assert u["w"][0] == 0 and u["w"][1] != 0
    with pytest.raises(ValueError, match="`cautious`: the inner state has no slot 'mu' for 'w'"):
        gradtx.cautious(looking, compare="mu").update(g, looking.init(g))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`cautious`: rescale must be one of \('mean', 'count', None\), got 'sum'"):
        gradtx.cautious(HEAVY, rescale="sum")
    with pytest.raises(ValueError, match=r"`cautious`: factor must .*, got 1.5"):
        gradtx.cautious(HEAVY, factor=1.5)
    with pytest.raises(TypeError, match="`cautious`: inner must be a gradient transformation"):
        gradtx.cautious(0.1)

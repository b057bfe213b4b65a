from functools import partial

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.clock import Hyperparameter, at
from gradtx.value import number


@gradtx.transformation
class halve(gradtx.GradientTransformation):
    """Divides by two to the power of the number of updates so far: a user's own, with the least that one needs."""

    base: Hyperparameter = number(default=2.0)

    def update(self, updates, state, params=None, **extra):
        (base,) = at(state.count, self.base)
        seen.append(jax.tree.map(lambda u: u.dtype, updates))
        return jax.tree.map(lambda u: u / base**state.count, updates), gradtx.ClockState(state.count + 1)


seen = []


def test_a_users_own_computes_wide_and_stores_as_chosen():
    tx, params = halve(), jnp.ones(2, jnp.bfloat16)
    state = tx.init(params)
    for expected in (1.0, 0.5, 0.25):
        updates, state = tx.update(params, state, params)
        assert updates.dtype == jnp.float32 and updates[0] == expected
    assert set(seen) == {jnp.dtype("float32")}
    assert gradtx.chain(halve(), halve()).init(params) == {"count": 0}


def test_two_plain_functions_make_a_transformation():
    def init(params):
        return jax.tree.map(jnp.zeros_like, params)

    def update(updates, state, params=None):
        return updates, jax.tree.map(lambda s, u: s + u, state, updates)

    for tx in (gradtx.GradientTransformation(init, update), gradtx.GradientTransformation(init=init, update=update)):
        assert tx == gradtx.GradientTransformation(init, update) and hash(tx) is not None
        params = jnp.ones(2, jnp.bfloat16)
        state = tx.init(params)
        _, state = tx.update(jnp.full(2, 0.5), state, params, value=1.0)  # extra arguments it does not know
        assert state.dtype == jnp.bfloat16 and state[0] == 0.5
        assert isinstance(tx, gradtx.GradientTransformation)
        assert tx.name == "test_two_plain_functions_make_a_transformation"


def test_it_unpacks_as_a_pair():
    init, update = gradtx.sgd(0.5)
    updates, _ = update(jnp.ones(2), init(jnp.ones(2)))
    assert updates[0] == -0.5


def test_extra_arguments_arrive_at_every_link():
    received = []

    def update(updates, state, params=None, **extra):
        received.append(extra)
        return updates, state

    spy = gradtx.GradientTransformation(lambda params: (), update)
    for tx in (spy, gradtx.chain(gradtx.clip(1.0), spy), gradtx.masked(gradtx.chain(spy), True)):
        tx.update(jnp.ones(1), tx.init(jnp.ones(1)), value=3)
    assert received == [{"value": 3}] * 3


def test_arguments_that_are_no_functions_are_refused():
    with pytest.raises(TypeError, match="`GradientTransformation`: init must be a function, got 3"):
        gradtx.GradientTransformation(3, lambda: None)


def test_a_class_without_update_says_so():
    @gradtx.transformation
    class empty(gradtx.GradientTransformation):
        """Nothing."""

    with pytest.raises(TypeError, match="`empty` has no `update`"):
        empty().update(jnp.ones(1), empty().init(jnp.ones(1)))


def test_updates_are_added_wide_and_rounded_once():
    params = {"a": jnp.asarray(1, jnp.bfloat16), "b": jnp.ones(2), "n": jnp.arange(2), "none": None}
    updates = {"a": jnp.float32(-0.003), "b": None, "n": None, "none": None}
    moved = gradtx.apply_updates(params, updates)
    assert moved["a"] == jnp.asarray(1 - 0.003, jnp.bfloat16) and moved["a"].dtype == jnp.bfloat16
    assert moved["b"] is params["b"] and moved["n"] is params["n"] and moved["none"] is None


@pytest.mark.parametrize(
    ("updates", "message"),
    [
        ({"a": jnp.ones((4, 3))}, r'`apply_updates`: updates\["a"\] has shape \(4, 3\), params have \(3,\)'),
        ({}, "`apply_updates`: updates lack the leaf 'a'"),
    ],
)
def test_nothing_is_broadcast_into_the_parameters(updates, message):
    with pytest.raises(ValueError, match=message):
        gradtx.apply_updates({"a": jnp.ones(3)}, updates)


def test_wrong_trees_are_named_at_trace_time():
    tx, params = gradtx.adamw(0.1), {"dense": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
    state = tx.init(params)
    wrong_shape = {"dense": {"kernel": jnp.ones(3), "bias": jnp.ones(4)}}
    with pytest.raises(ValueError, match=r'updates\["dense"\]\["kernel"\] has shape \(3,\), params have \(3, 4\)'):
        jax.eval_shape(tx.update, wrong_shape, state, params)
    with pytest.raises(ValueError, match="updates lack the leaf 'dense/bias', which params have"):
        tx.update({"dense": {"kernel": jnp.ones((3, 4))}}, state, params)
    with pytest.raises(ValueError, match=r"`add_decayed_weights` reads the parameters: call `update\("):
        tx.update(params, state)
    adam = gradtx.scale_by_adam()
    with pytest.raises(ValueError, match=r'`scale_by_adam`: updates\["dense"\]\["kernel"\] has shape \(3, 1\)'):
        adam.update({"dense": {"kernel": jnp.ones((3, 1)), "bias": jnp.ones(4)}}, adam.init(params))
    with pytest.raises(ValueError, match="`scale_by_adam`: updates lack the leaf 'dense/bias'"):
        adam.update({"dense": {"kernel": jnp.ones((3, 4))}}, adam.init(params))


@pytest.mark.parametrize(
    ("tx", "state", "message"),
    [
        (
            gradtx.scale_by_adam(),
            (),
            "`scale_by_adam`: the state is not what its `init` makes: got tuple, expected Scale",
        ),
        (
            gradtx.adam(0.1),
            gradtx.sgd(0.1).init(jnp.ones(1)),
            r"got {count: array}, expected {count: array, scale_by_a",
        ),
        (gradtx.adam(0.1), None, "got None, expected {count"),
    ],
)
def test_a_state_of_something_else_is_named(tx, state, message):
    with pytest.raises(ValueError, match=message):
        tx.update(jnp.ones(1), state, jnp.ones(1))


def test_a_grid_of_rates_is_one_program():
    def final_loss(rate):
        tx, p = gradtx.adamw(rate), jnp.array([3.0, -2.0])

        def step(carry, _):
            p, state = carry
            updates, state = tx.update(jax.grad(lambda p: jnp.sum(p**2))(p), state, p)
            return (gradtx.apply_updates(p, updates), state), None

        (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), length=50)
        return jnp.sum(p**2)

    rates = jnp.array([0.001, 0.01, 0.1])
    losses = jax.jit(jax.vmap(final_loss))(rates)
    np.testing.assert_allclose(losses, [final_loss(r) for r in rates], rtol=1e-5)
    slope = jax.grad(final_loss)(0.01)  # the hypergradient, against a central difference of step 1e-4: error 1e-8
    difference = (final_loss(0.01 + 1e-4) - final_loss(0.01 - 1e-4)) / 2e-4
    np.testing.assert_allclose(slope, difference, rtol=1e-2)  # float32 losses of size 10 leave it 3 digits


def test_a_stacked_transformation_is_a_population():
    txs = [gradtx.adam(rate, b1=b1) for rate, b1 in ((0.1, 0.9), (0.01, 0.5))]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *txs)
    params = jnp.ones((2, 3))
    states = jax.vmap(lambda tx, p: tx.init(p))(stacked, params)
    updates, _ = jax.vmap(lambda tx, g, s, p: tx.update(g, s, p))(stacked, params, states, params)
    for i, tx in enumerate(txs):
        chex.assert_trees_all_close(updates[i], tx.update(params[i], tx.init(params[i]))[0], rtol=1e-6)


def test_equinox_modules_are_trees_like_others():
    model = eqx.nn.MLP(2, 1, 4, 1, key=jax.random.key(0))
    tx = gradtx.adamw(1e-2)
    loss = lambda m: jnp.sum(jax.vmap(m)(jnp.ones((3, 2))) ** 2)
    state = tx.init(model)  # functions among the leaves are passed over
    for _ in range(3):
        updates, state = tx.update(eqx.filter_grad(loss)(model), state, model)
        model = gradtx.apply_updates(model, updates)
    assert jnp.isfinite(loss(model))


def test_complex_parameters_descend_without_a_conjugate():
    for tx in (gradtx.sgd(0.1), gradtx.adamw(0.1, weight_decay=0.0), gradtx.sgd(0.1, momentum=0.5)):
        z = jnp.complex64(3)
        state = tx.init(z)
        step = jax.jit(partial(_descend, tx))
        for _ in range(300):
            z, state = step(z, state)
        assert abs(z - (1 + 2j)) < 1e-2


def _descend(tx, z, state):
    updates, state = tx.update(jax.grad(lambda z: jnp.abs(z - (1 + 2j)) ** 2)(z), state, z)
    return gradtx.apply_updates(z, updates), state


def test_decay_shrinks_complex_parameters():
    tx = gradtx.chain(gradtx.add_decayed_weights(0.5), gradtx.scale_by_learning_rate(1.0))
    z = jnp.array([1 + 2j])
    updates, _ = tx.update(jnp.zeros(1, complex), tx.init(z), z)
    np.testing.assert_allclose(gradtx.apply_updates(z, updates), [0.5 + 1j])


class signed_adam(gradtx.scale_by_adam):
    """Extends both methods, and is not even decorated."""

    def init(self, params):
        return super().init(params)

    def update(self, updates, state, params=None, **extra):
        updates, state = super().update(updates, state, params, **extra)
        return jax.tree.map(jnp.sign, updates), state


class twice(signed_adam):
    def update(self, updates, state, params=None, **extra):
        updates, state = super().update(updates, state, params, **extra)
        return jax.tree.map(lambda u: 2 * u, updates), state


class Thrice:
    """Mixed in: no transformation itself."""

    def update(self, updates, state, params=None, **extra):
        updates, state = super().update(updates, state, params, **extra)
        return jax.tree.map(lambda u: 3 * u, updates), state


class thrice(Thrice, signed_adam):
    pass


class by_name(gradtx.scale_by_adam):
    def update(self, updates, state, params=None):
        updates, state = gradtx.scale_by_adam.update(self, updates, state, params)
        return jax.tree.map(jnp.sign, updates), state


@pytest.mark.parametrize("wrap", [lambda tx: tx, gradtx.chain, gradtx.monitor, gradtx.apply_if_finite])
@pytest.mark.parametrize(("kind", "factor"), [(signed_adam, 1), (twice, 2), (thrice, 3), (by_name, 1)])
def test_a_formula_extends_another_by_super(kind, factor, wrap):
    tx, p = wrap(kind(b1=0.5)), jnp.array([2.0, -1.0, 3.0], jnp.bfloat16)
    state = tx.init(p)
    for _ in range(2):
        updates, state = jax.jit(tx.update)(p, state, p)
    assert updates.dtype == jnp.float32 and updates.tolist() == [factor, -factor, factor]


def test_super_of_what_has_no_formula_says_so():
    class nothing(gradtx.GradientTransformation):
        def init(self, params):
            return super().init(params)

        def update(self, updates, state, params=None):
            return super().update(updates, state, params)

    assert nothing().init(1.0).count == 0
    with pytest.raises(TypeError, match="`nothing` has no `update`: write one in the class"):
        nothing().update(1.0, nothing().init(1.0))


@gradtx.transformation
class without_params(gradtx.GradientTransformation):
    def update(self, updates, state):
        return updates / 2, state


@gradtx.transformation
class by_value(gradtx.GradientTransformation):
    def update(self, updates, state, params=None, *, value):
        return updates * value / 6, state


PLAIN = [
    lambda updates, state: (updates / 2, state),
    lambda updates, state, params=None: (updates / 2, state),
    lambda updates, state, *, params: (updates * params / 2, state),
    lambda updates, state, params=None, *, value: (updates * value / 6, state),
    lambda *args, value=0: (args[0] * value / 6, args[1]),
    lambda updates, state, params, **extra: (updates * extra["value"] / 6, state),
]
ODD = [without_params(), by_value(), *[gradtx.GradientTransformation(lambda params: (), update) for update in PLAIN]]


@pytest.mark.parametrize("wrap", [lambda tx: tx, gradtx.chain, gradtx.monitor, lambda tx: gradtx.masked(tx, True)])
@pytest.mark.parametrize("tx", ODD)
def test_a_formula_is_given_what_it_names(tx, wrap):
    tx, p = wrap(tx), jnp.ones(2)
    assert tx.update(p, tx.init(p), p, value=3.0, other=1)[0].tolist() == [0.5, 0.5]


def test_what_it_names_and_nobody_gives_is_missed():
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'value'"):
        by_value().update(1.0, by_value().init(1.0), 1.0)


@pytest.mark.parametrize(
    ("params", "grads", "message"),
    [
        (None, {"a": jnp.array([1, 2])}, r'`chain`: updates\["a"\] holds integers: give `params` too'),
        ({"a": jnp.ones(1)}, {"a": jnp.ones(1, jnp.complex64)}, r'`chain`: updates\["a"\] is complex, and its param'),
    ],
)
def test_a_gradient_that_cannot_be_one_is_named(params, grads, message):
    tx = gradtx.sgd(0.1)
    with pytest.raises(ValueError, match=message):
        tx.update(grads, tx.init(grads), params)


def test_the_parameters_dtype_decides_what_is_passed_over():
    params = {"votes": jnp.ones(2), "steps": jnp.arange(2), "none": jnp.ones(2)}
    grads = {"votes": np.array([1, -2]), "steps": jnp.ones(2), "none": np.zeros(2, jax.dtypes.float0)}
    tx = gradtx.sgd(0.1)
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_allclose(updates["votes"], [-0.1, 0.2], rtol=1e-6)
    assert updates["steps"].tolist() == [0, 0] and updates["steps"].dtype == params["steps"].dtype
    moved = gradtx.apply_updates(params, updates)
    assert moved["none"].tolist() == [1, 1] and moved["steps"] is params["steps"]
    assert gradtx.apply_updates({"a": jnp.ones(2)}, {"a": np.array([1, 2])})["a"].tolist() == [2, 3]


def test_eval_params_are_the_params_unless_a_transformation_says_otherwise():
    params = {"w": jnp.ones(2), "b": None}
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.masked(gradtx.apply_if_finite(gradtx.adamw(0.1)), {"w": True}))
    state = gradtx.monitor(tx).init(params)
    assert gradtx.eval_params(gradtx.monitor(tx), state, params) is not None
    assert gradtx.eval_params(gradtx.monitor(tx), state, params)["w"] is params["w"]


@pytest.mark.parametrize("nothing", [None, (), gradtx.EmptyState(), optax.EmptyState()], ids=repr)
def test_what_remembers_only_the_time_needs_no_state_when_programs_have_none(nothing):
    grads = {"a": jnp.array([3.0, 4.0])}
    for tx in (gradtx.clip_by_global_norm(1.0), gradtx.clip(1.0), gradtx.scale(0.5), gradtx.sgd(0.1).links[0]):
        updates, state = jax.jit(lambda g, tx=tx: tx.update(g, nothing, g))(grads)
        assert state == nothing
        chex.assert_trees_all_equal(updates, tx.update(grads, tx.init(grads), grads)[0])
    with pytest.raises(ValueError, match=r"`scale`: step_size is a schedule.*put it in a chain"):
        gradtx.scale(lambda count: 1.0).update(grads, nothing)
    with pytest.raises(ValueError, match="`scale_by_adam`: the state is not what its `init` makes"):
        gradtx.scale_by_adam().update(grads, nothing)

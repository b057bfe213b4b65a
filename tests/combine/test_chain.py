import jax
import jax.numpy as jnp
import optax
import pytest

import gradtx
from tests.public import PUBLIC

PARAMS = {"a": jnp.ones((2, 3)), "b": jnp.ones(3)}


def layout(tx):
    return jax.tree.structure(tx.init(PARAMS))


def test_chains_within_chains_are_one_chain():
    clip, adamw = gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)
    nested = gradtx.chain(clip, adamw)
    assert nested == gradtx.chain(clip, *adamw.links) == gradtx.chain(gradtx.chain(clip), gradtx.chain(adamw))
    assert repr(nested).startswith("chain(clip_by_global_norm(max_norm=1.0), scale_by_adam(), add_decayed")


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3)),
        gradtx.chain(gradtx.clip_by_global_norm(lambda count: 1.0 + count), gradtx.adamw(1e-3)),
        gradtx.adamw(gradtx.linear_schedule(0.0, 1e-3, 10), weight_decay=lambda count: 0.1),
        gradtx.adamw(1e-3, mask={"a": True, "b": False}),
        gradtx.chain(gradtx.identity(), gradtx.centralize(), gradtx.add_noise(0.1, 0.5, 0), gradtx.adam(1e-3)),
    ],
    ids=["clip", "scheduled clip", "schedules", "mask", "stateless links"],
)
def test_stateless_links_and_schedules_leave_the_structure_as_it_was(tx):
    assert layout(tx) == layout(gradtx.adamw(1e-3))
    _, state = tx.update(PARAMS, gradtx.adamw(1e-3).init(PARAMS), PARAMS)  # a checkpoint of the plain one will do
    assert state["count"] == 1


def test_links_of_a_kind_are_numbered_also_across_chains():
    twice = gradtx.chain(gradtx.trace(0.9), gradtx.trace(0.5))
    thrice = gradtx.chain(twice, gradtx.trace(0.1))
    assert list(twice.init(PARAMS)) == ["count", "trace", "trace_2"]
    assert list(thrice.init(PARAMS)) == ["count", "trace", "trace_2", "trace_3"]


def test_names_that_the_caller_gave_are_kept_and_new_ones_are_free():
    links = [gradtx.trace(0.9), gradtx.trace(0.5), gradtx.trace(0.1), gradtx.trace(0.2)]
    named = gradtx.named_chain(("trace_2", links[0]), ("trace", links[1]))
    tx = gradtx.chain(named, *links[2:])
    assert tx.names == ("trace_2", "trace", "trace_3", "trace_4")
    assert gradtx.chain(links[2], named, links[3]).names == ("trace_3", "trace_2", "trace", "trace_4")
    assert gradtx.chain(named, named).names == ("trace_2", "trace", "trace_2_2", "trace_3")
    assert gradtx.chain(tx, gradtx.chain(*links[2:])).names == (*tx.names, "trace_5", "trace_6")
    assert eval(repr(tx), dict(PUBLIC)) == tx
    x, (state, states) = jnp.ones(()), (tx.init(jnp.ones(())), [link.init(jnp.ones(())) for link in links])
    for _ in range(3):
        updates, state = tx.update(x, state)
        expected = x
        for i, link in enumerate(links):
            expected, states[i] = link.update(expected, states[i])
    assert updates == pytest.approx(expected)


def test_a_link_may_be_called_count():
    class count(gradtx.GradientTransformation):
        def init(self, params):
            return {"seen": jnp.zeros(())}

        def update(self, updates, state):
            return updates, {"seen": state["seen"] + 1}

    tx = gradtx.chain(count(), count())
    _, state = tx.update(jnp.ones(()), tx.init(jnp.ones(())))
    assert state == {"count": 1, "count_2": {"seen": 1}, "count_3": {"seen": 1}}


def test_links_act_in_order():
    tx = gradtx.chain(gradtx.scale(10.0), gradtx.clip(1.0), gradtx.scale(0.5))
    updates, _ = tx.update(jnp.array([0.01, 3.0]), tx.init(jnp.ones(2)))
    assert updates.tolist() == pytest.approx([0.05, 0.5])


def test_a_schedule_is_read_at_the_count_of_updates_made_so_far():
    tx = gradtx.chain(gradtx.scale(lambda count: count))
    state = tx.init(jnp.ones(1))
    for expected in range(3):
        updates, state = tx.update(jnp.ones(1), state)
        assert updates[0] == expected


def test_an_empty_chain_is_the_identity():
    updates, state = gradtx.chain().update(PARAMS, gradtx.chain().init(PARAMS))
    assert updates["a"] is PARAMS["a"] and state == {"count": 1}


def test_names_given_by_the_caller_key_the_state():
    tx = gradtx.named_chain(("clip", gradtx.clip(1.0)), ("opt", gradtx.adam(0.1)), ("tail", gradtx.trace(0.5)))
    assert set(tx.init(PARAMS)) == {"count", "opt", "tail"}
    assert set(tx.init(PARAMS)["opt"]) == {"count", "scale_by_adam"}
    assert repr(tx).startswith("named_chain(('clip', clip(max_delta=1.0)), ('opt', chain(scale_by_adam(), ")
    assert eval(repr(tx), dict(PUBLIC)) == tx


@pytest.mark.parametrize("names", [("a", "a"), ("count", "b"), (1, "b")])
def test_unusable_names_are_refused(names):
    with pytest.raises(ValueError, match='`named_chain`: names must be different strings, and not "count"'):
        gradtx.named_chain(*((name, gradtx.identity()) for name in names))


@pytest.mark.parametrize("link", [gradtx.adam, 0.1, None, {"init": 1}])
def test_what_is_no_transformation_is_refused(link):
    with pytest.raises(TypeError, match="`chain`: link 1 must be a gradient transformation, got"):
        gradtx.chain(gradtx.clip(1.0), link)


def test_a_state_of_another_chain_is_refused():
    with pytest.raises(ValueError, match=r"`chain`: the state has \['scale_by_lion'\], but the links are"):
        gradtx.adam(0.1).update(PARAMS, gradtx.lion(0.1).init(PARAMS), PARAMS)


def test_a_foreign_link_is_named_after_the_function_that_made_it():
    tx = gradtx.chain(optax.scale_by_adam(), gradtx.scale(-0.1), optax.clip(1.0))
    assert list(tx.init(PARAMS)) == ["count", "scale_by_adam"]  # Optax's empty state does not appear either

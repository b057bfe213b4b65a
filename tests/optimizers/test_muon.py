"""muon, scale_by_muon: Jordan et al. 2024; Liu et al. 2025."""

import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same

SHAPES = {"dense": {"kernel": (4, 3), "wide": (3, 6), "same": (6, 3)}}
STANDARD = (3.4445, -4.7750, 2.0315)
DION = [(4.0848, -6.8946, 2.9270), (3.9505, -6.3029, 2.6377), (3.7418, -5.5913, 2.3037), (2.8769, -3.1427, 1.2046)]


def orthogonal(m, triples, eps=1e-8):
    """Jordan's polynomial of the singular values, from a decomposition."""
    u, s, v = np.linalg.svd(m, full_matrices=False)
    s = s / (np.sqrt(np.sum(s**2)) + eps)
    for a, b, c in triples:
        s = a * s + b * s**3 + c * s**5
    return u * s @ v


def rule(lr=0.02, beta=0.95, decay=0.0, nesterov=True, triples=(STANDARD,) * 5, adaptive=False, rms=None):
    """For matrices alone, in flat dicts. The mean without bias, as Adam's; Nesterov's as Dozat's."""

    def start(params):
        means = {path: np.zeros_like(p) for path, p in params.items()}

        def step(grads, params, t):
            updates = {}
            for path, g in grads.items():
                means[path] = beta * means[path] + (1 - beta) * g
                m = means[path] / (1 - beta**t)
                if nesterov:
                    m = beta * means[path] / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
                u = orthogonal(m, triples)
                u = u * np.vdot(m, u).real if adaptive else u
                rows, columns = m.shape
                u = u * (np.sqrt(max(1, columns / rows)) if rms is None else rms * np.sqrt(max(rows, columns)))
                updates[path] = -lr * (u + decay * params[path])
            return updates

        return step

    return start


# a polynomial with slopes up to 3.4 in each of 5 steps makes a rounding of float32 some dozen times larger
LOOSE = {"float64": 1e-10, "float32": 2e-4}


@both_precisions
@pytest.mark.parametrize("nesterov", [True, False])
def test_twelve_steps_are_the_papers(nesterov, precision):
    tx = gradtx.muon(0.02, weight_decay=0.1, nesterov=nesterov)
    wanted = rule(decay=0.1, nesterov=nesterov)
    check(tx, wanted, precision, shapes=SHAPES, tolerance=LOOSE[precision])


@both_precisions
def test_a_triple_for_each_step(precision):
    tx = gradtx.muon(0.02, DION, 99, 0.9, consistent_rms=0.2)
    check(tx, rule(beta=0.9, triples=DION, rms=0.2), precision, shapes=SHAPES, tolerance=LOOSE[precision])


def test_the_adaptive_form_grows_with_the_gradient():
    check(gradtx.muon(0.02, adaptive=True), rule(adaptive=True), shapes=SHAPES)


def test_complex_matrices_are_made_unitary():
    check(
        gradtx.muon(0.02, adaptive=True, weight_decay=0.1),
        rule(adaptive=True, decay=0.1),
        shapes=SHAPES,
        complex_leaves=("dense/kernel", "dense/wide"),
    )


def test_what_is_no_matrix_is_adams():
    grads = {"kernel": jnp.ones((2, 3)), "bias": jnp.arange(3.0), "stack": jnp.ones((2, 2, 2))}
    tx = gradtx.muon(0.1, adam_b1=0.8, adam_weight_decay=0.1, adam_learning_rate=0.3, eps=1e-6)
    adam = gradtx.adamw(0.3, 0.8, eps=1e-6, weight_decay=0.1, nesterov=True)
    updates, _ = tx.update(grads, tx.init(grads), grads)
    others = {"bias": grads["bias"], "stack": grads["stack"]}
    wanted, _ = adam.update(others, adam.init(others), others)
    for name, x in wanted.items():
        np.testing.assert_array_equal(updates[name], x)


TREE = {"embed": {"w": jnp.ones((4, 3))}, "block": {"w": jnp.ones((3, 3)), "b": jnp.ones(3)}, "head": jnp.ones((3, 4))}


def labels(tx, params=TREE):
    """Which parameters have Muon's state, and which Adam's."""
    inner = tx.init(params).inner_states
    mu = inner["muon"].inner_state["scale_by_muon"].mu
    nu = inner["adam"].inner_state["scale_by_adam"].nu
    return {gradtx.paths.names(x)[i] for x in [mu] for i in range(len(jax.tree.leaves(x)))}, set(gradtx.paths.names(nu))


NUMBERS = gradtx.MuonDimensionNumbers()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({}, {"embed/w", "block/w", "head"}),
        ({"adam_mask": ["embed", "head"]}, {"block/w"}),
        ({"adam_mask": "^head$"}, {"embed/w", "block/w"}),
        ({"adam_mask": {"embed": True, "block": False, "head": True}}, {"block/w"}),
        ({"adam_mask": lambda p: jax.tree.map(lambda x: x.shape[0] == 4, p)}, {"block/w", "head"}),
        (
            {"muon_weight_dimension_numbers": {"embed": None, "block": {"w": NUMBERS, "b": None}, "head": None}},
            {"block/w"},
        ),
        (
            {"muon_weight_dimension_numbers": lambda p: jax.tree.map(lambda x: NUMBERS if x.ndim == 2 else None, p)},
            {"embed/w", "block/w", "head"},
        ),
        (
            {
                "muon_weight_dimension_numbers": {"embed": None, "block": {"w": NUMBERS, "b": None}, "head": NUMBERS},
                "adam_mask": "head",
            },
            {"block/w"},
        ),
        ({"muon_weight_dimension_numbers": lambda p: None}, set()),
    ],
)
def test_who_is_muons(arguments, wanted):
    muons, adams = labels(gradtx.muon(0.1, **arguments))
    assert muons == wanted
    assert adams == set(gradtx.paths.names(TREE)) - wanted


def test_a_prefix_of_dimension_numbers_is_for_all_below():
    params = {"layers": {"q": jnp.ones((2, 3, 4)), "k": jnp.ones((2, 4, 3))}, "bias": jnp.ones(3)}
    numbers = {"layers": gradtx.MuonDimensionNumbers(1, 2), "bias": None}
    tx = gradtx.muon(0.1, muon_weight_dimension_numbers=numbers)
    assert labels(tx, params)[0] == {"layers/q", "layers/k"}
    assert eval(repr(tx), vars(gradtx) | {name: getattr(gradtx, name) for name in dir(gradtx)}) == tx


def test_a_stack_of_matrices_is_trained_as_each_of_them_alone():
    """So layers that a scan stacked, and heads, are matrices of their own."""
    rng = np.random.default_rng(0)
    g = jnp.asarray(rng.normal(size=(3, 4, 5)), jnp.float32)
    tx = gradtx.scale_by_muon(weight_dimension_numbers=gradtx.MuonDimensionNumbers(1, 2))
    alone = gradtx.scale_by_muon()
    together = tx.update(g, tx.init(g))[0]
    for x, y in zip(together, g, strict=True):
        np.testing.assert_allclose(x, alone.update(y, alone.init(y))[0], rtol=1e-4, atol=1e-5)


def test_a_direction_does_not_depend_on_the_gradients_scale():
    scaled = gradtx.chain(gradtx.scale(1024.0), gradtx.scale_by_muon(eps=0.0))
    check_same(gradtx.scale_by_muon(eps=0.0), scaled, shapes=SHAPES, tolerance=1e-10)  # squares of 1024 are exact


def test_rotating_the_gradient_rotates_the_step():
    rng = np.random.default_rng(0)
    g = rng.normal(size=(4, 6))
    left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (4, 6))
    tx = gradtx.scale_by_muon()
    step = lambda x: np.asarray(tx.update(jnp.asarray(x, jnp.float32), tx.init(jnp.ones((4, 6))))[0])
    np.testing.assert_allclose(step(left @ g @ right), left @ step(g) @ right, atol=1e-4)


def test_presets_have_names():
    assert gradtx.scale_by_muon("standard") == gradtx.scale_by_muon()
    assert gradtx.scale_by_muon("dion").ns_coeffs[:4] == tuple(DION)
    assert gradtx.scale_by_muon(jnp.array(STANDARD)) == gradtx.scale_by_muon(np.float32(STANDARD).tolist())


def count_loops(tx, params):
    """The loops in the lowered program, those of a function that is called several times as often as it is called."""
    traced = jax.jit(tx.update).trace(params, jax.eval_shape(tx.init, params), params)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    bodies = dict(re.findall(r"func\.func \w+ @([\w.]+)\((.*?)(?=func\.func|\Z)", text, re.DOTALL))

    def loops(name):
        calls = Counter(re.findall(r"call @([\w.]+)", bodies[name]))
        return bodies[name].count("stablehlo.while") + sum(n * loops(called) for called, n in calls.items())

    return loops("main")


EIGHT = {str(i): jnp.ones((8, 8)) for i in range(8)}


def test_equal_matrices_share_one_loop(one_device):
    assert count_loops(gradtx.muon(0.1), EIGHT) == 1
    assert count_loops(gradtx.muon(0.1, "dion", preconditioning="aol"), EIGHT) == 1
    mixed = {"wide": jnp.ones((4, 5)), "tall": jnp.ones((5, 4)), "bias": jnp.ones(8), "stack": jnp.ones((2, 8, 8))}
    assert count_loops(gradtx.muon(0.1), EIGHT | mixed) == 2


def test_on_several_devices_each_leaf_has_its_own():
    assert count_loops(gradtx.muon(0.1), EIGHT) == 8


def test_stacked_and_separate_matrices_take_the_same_steps(monkeypatch):
    rng = np.random.default_rng(0)
    params = [jnp.asarray(rng.normal(size=s), jnp.float32) for s in ((4, 3), (4, 3), (3, 4), (2, 2))]
    tx = gradtx.muon(0.1)
    separate = tx.update(params, tx.init(params), params)[0]
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for x, y in zip(separate, tx.update(params, tx.init(params), params)[0], strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)  # batched products sum in another order


def test_an_orthogonalizer_takes_the_place_of_the_other_arguments():
    given = gradtx.muon(0.02, "dion", 3, orthogonalizer=gradtx.newton_schulz(eps=1e-8))
    check_same(given, gradtx.muon(0.02), shapes=SHAPES)
    zero = gradtx.scale_by_muon(orthogonalizer=jnp.zeros_like)
    assert not np.any(zero.update(jnp.ones((3, 2)), zero.init(jnp.ones((3, 2))))[0])


def test_it_is_a_chain_of_links():
    links = gradtx.chain(
        gradtx.ema(0.95, nesterov=True), gradtx.orthogonalize(gradtx.newton_schulz(eps=1e-8)),
        gradtx.scale_by_shape(), gradtx.add_decayed_weights(0.1), gradtx.scale_by_learning_rate(0.02),
    )  # fmt: skip
    check_same(links, gradtx.muon(0.02, weight_decay=0.1), shapes=SHAPES)


def test_heads_side_by_side_are_trained_as_each_alone():
    """Of a fused kernel of queries, keys and values, inputs x (3 heads channels)."""
    rng = np.random.default_rng(0)
    fused = {"qkv": jnp.asarray(rng.normal(size=(8, 3 * 2 * 4)), jnp.float32)}
    tx = gradtx.muon(0.02, muon_weight_dimension_numbers=gradtx.MuonDimensionNumbers(0, 1, parts={1: 6}))
    alone = dict(enumerate(jnp.split(fused["qkv"], 6, axis=1)))
    state = tx.init(fused)
    assert state.inner_states["muon"].inner_state["scale_by_muon"].mu["qkv"].shape == (8, 24)
    together = tx.update(fused, state, fused)[0]["qkv"]
    each = gradtx.muon(0.02)
    parts = each.update(alone, each.init(alone), alone)[0]
    np.testing.assert_allclose(together, jnp.concatenate(list(parts.values()), axis=1), rtol=1e-4, atol=1e-6)


def test_the_state_holds_no_constant():
    state = gradtx.scale_by_muon().init(jnp.ones((2, 3)))
    assert len(jax.tree.leaves(state)) == 2 and state.ns_coeffs is None


def test_products_in_bfloat16_are_as_orthogonal_as_they_need_be():
    g = jnp.asarray(np.random.default_rng(0).normal(size=(32, 64)), jnp.float32)
    tx = gradtx.scale_by_muon(ns_dtype="bfloat16")
    updates, _ = tx.update(g, tx.init(g))
    s = np.linalg.svd(updates, compute_uv=False)
    assert updates.dtype == jnp.float32 and 0.5 < s.min() and s.max() < 1.4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"beta": 1.0}, "beta"),
        ({"eps": -1.0}, "eps"),
        ({"ns_coeffs": (1.0, 2.0)}, "ns_coeffs"),
        ({"ns_coeffs": "standart"}, "ns_coeffs.*standart"),
        ({"ns_steps": -1}, "ns_steps"),
        ({"preconditioning": "none"}, "preconditioning.*none"),
        ({"ns_coeffs": "standard", "ns_steps": 2.5}, "ns_steps"),
    ],
)
@pytest.mark.parametrize("build", [gradtx.scale_by_muon, lambda **kw: gradtx.muon(1e-3, **kw)])
def test_an_argument_out_of_range_is_an_error_that_names_it(build, arguments, said):
    with pytest.raises(ValueError, match=f"`scale_by_muon`.*{said}"):
        build(**arguments)


def test_what_cannot_be_a_matrix_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`scale_by_muon`.*'block/b'.*\(3,\).*weight_dimension_numbers"):
        gradtx.scale_by_muon().init(TREE)
    with pytest.raises(ValueError, match=r"`scale_by_muon`.*'block/b'.*1 dimensions"):
        gradtx.muon(0.1, muon_weight_dimension_numbers=gradtx.MuonDimensionNumbers()).init(TREE)
    with pytest.raises(TypeError, match=r"`scale_by_muon`.*orthogonalizer.*newton_schulz"):
        gradtx.muon(0.1, orthogonalizer="dion")
    with pytest.raises(TypeError, match=r"`scale_by_muon`.*weight_dimension_numbers.*0"):
        gradtx.muon(0.1, muon_weight_dimension_numbers={"embed": 0})

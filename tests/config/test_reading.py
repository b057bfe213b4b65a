"""What a person may write, and what is said where it is wrong."""

import re

import jax.numpy as jnp
import pytest

import gradtx
from gradtx import from_config, labels

YAML = """
chain:
  - clip_by_global_norm: {max_norm: 1.0}
  - centralize
  - partition:
      transforms:
        matrices: {muon: {learning_rate: 2e-2, weight_decay: 0.1}}
        rest:
          adamw:
            learning_rate:
              warmup_stable_decay_schedule:
                {init_value: 0.0, peak_value: 1e-3, warmup_steps: 100, total_steps: 10_000}
            mask: [kernel$, embedding$]
      param_labels:
        labels.groups:
          rules:
            matrices: {labels.role: [matrix]}
            rest: ...
"""


def test_a_recipe_in_yaml():
    yaml = pytest.importorskip("yaml")
    rate = gradtx.warmup_stable_decay_schedule(0.0, 1e-3, 100, 10_000)
    assert from_config(yaml.safe_load(YAML)) == gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.centralize(),
        gradtx.partition(
            {
                "matrices": gradtx.muon(2e-2, weight_decay=0.1),
                "rest": gradtx.adamw(rate, mask=["kernel$", "embedding$"]),
            },
            labels.groups({"matrices": labels.role("matrix"), "rest": ...}),
        ),
    )


SAME = [
    ("centralize", gradtx.centralize()),
    ({"centralize": {}}, gradtx.centralize()),
    ({"clip": [0.5]}, gradtx.clip(0.5)),
    ({"contrib.muon": {"learning_rate": 0.1}}, gradtx.muon(0.1)),
    (
        {"masked": {"inner": "centralize", "mask": "1e3"}},
        gradtx.masked(gradtx.centralize(), "1e3"),
    ),  # a pattern is text
    ({"masked": {"inner": "centralize", "mask": {"scale": True}}}, gradtx.masked(gradtx.centralize(), {"scale": True})),
    ({"sgd": {"learning_rate": "1e-1", "momentum": ".9", "nesterov": "True"}}, gradtx.sgd(0.1, 0.9, nesterov=True)),
    (
        {"piecewise_constant_schedule": [1.0, {"1000": "0.1", 20: 0.5}]},
        gradtx.piecewise_constant_schedule(1.0, {20: 0.5, 1000: 0.1}),
    ),
    ({"rex_schedule": {"init_value": "1", "decay_steps": "1_000"}}, gradtx.rex_schedule(1.0, 1000)),
    ({"join_schedules": {"schedules": ["1e-1", 0.2], "boundaries": [5]}}, gradtx.join_schedules([0.1, 0.2], [5])),
    ({"adam": {"learning_rate": 0.1, "mu_dtype": "bfloat16"}}, gradtx.adam(0.1, mu_dtype=jnp.bfloat16)),
    (
        {"named_chain": [["a", "centralize"], ["b", {"clip": [1.0]}]]},
        gradtx.named_chain(("a", gradtx.centralize()), ("b", gradtx.clip(1.0))),
    ),
    (
        {"chain": [gradtx.clip(0.5), {"sgd": {"learning_rate": gradtx.rex_schedule(0.1, 9)}}]},
        gradtx.chain(gradtx.clip(0.5), gradtx.sgd(gradtx.rex_schedule(0.1, 9))),
    ),
    (
        {"partition": {"transforms": {"adam": {"adam": [0.1]}}, "param_labels": "adam"}},
        gradtx.partition({"adam": gradtx.adam(0.1)}, "adam"),
    ),
    ({"labels.Rule": {"kind": "&", "args": ["^x", {"labels.rank": [2]}]}}, labels.path("^x") & labels.rank(2)),
    (
        {"sgdr_schedule": [[{"init_value": 0, "peak_value": 1, "warmup_steps": 2, "decay_steps": 9}]]},
        gradtx.sgdr_schedule([{"init_value": 0, "peak_value": 1, "warmup_steps": 2, "decay_steps": 9}]),
    ),
]


@pytest.mark.parametrize("config, want", SAME, ids=[str(config)[:60] for config, _ in SAME])
def test_it_reads(config, want):
    assert from_config(config) == want


def in_a_chain(config):
    return {"chain": [{"clip": {"max_delta": 1.0}}, config]}


WRONG = [
    (
        ValueError,
        "gradtx has no 'adamww' that could be called here. Did you mean 'adamw'?",
        {"adamww": {"learning_rate": 1}},
    ),
    (ValueError, "chain[1]: gradtx has no 'sgdd' that could be called here. Did you mean 'sgd'?", in_a_chain("sgdd")),
    (ValueError, "named_chain[0][1]: gradtx has no 'adamww'", {"named_chain": [["a", {"adamww": {}}]]}),
    (
        ValueError,
        "partition.transforms.a: gradtx has no 'lionn'",
        {"partition": {"transforms": {"a": {"lionn": [1]}}, "param_labels": "a"}},
    ),
    (
        ValueError,
        "adamw.learning_rate: gradtx has no 'cosine_decay'",
        {"adamw": {"learning_rate": {"cosine_decay": {}}}},
    ),
    (ValueError, "masked.inner: gradtx has no 'clipp'", {"masked": {"inner": {"clipp": [1.0]}, "mask": "x"}}),
    (
        ValueError,
        "chain[1].adamw has no argument 'beta1'. Did you mean 'b1'? It has learning_rate, b1,",
        in_a_chain({"adamw": {"learning_rate": 1, "beta1": 0.9}}),
    ),
    (ValueError, "chain[1].adamw: missing a required argument: 'learning_rate'.", in_a_chain({"adamw": {}})),
    (ValueError, "clip: too many positional arguments.", {"clip": [1.0, 2.0]}),
    (
        ValueError,
        "chain[1].adamw.b1: `scale_by_adam`: b1 must lie in [0, 1), got 1.5.",
        in_a_chain({"adamw": {"learning_rate": 1, "b1": 1.5}}),
    ),
    (
        TypeError,
        "chain[1].adamw.b1: `scale_by_adam`: b1 must be a number, an array or a schedule",
        in_a_chain({"adamw": {"learning_rate": 1, "b1": "fast"}}),
    ),
    (TypeError, "adamw.b1: `scale_by_adam`: b1 must be a number", {"adamw": {"learning_rate": 1, "b1": None}}),
    (
        ValueError,
        "sgd.nesterov: `trace`: nesterov must be one of (True, False), got 'yes'",
        {"sgd": {"learning_rate": 1, "momentum": 0.9, "nesterov": "yes"}},
    ),
    (
        TypeError,
        "chain[1].adamw must have its arguments as a mapping, or a list, got 0.001.",
        in_a_chain({"adamw": 1e-3}),
    ),
    (
        ValueError,
        "chain[1] must be a mapping with one key, the name of what is called, got the keys ['clip', 'sgd'].",
        in_a_chain({"clip": [1], "sgd": [1]}),
    ),
    (ValueError, "config must be a mapping with one key", {}),
    (TypeError, "config must be a mapping with one key, the name of what is called, got None.", None),
    (TypeError, "chain: `chain`: link 1 must be a gradient transformation, got 3", {"chain": ["centralize", 3]}),
    (
        ValueError,
        "masked.mask.scale has no argument 'kernel'. It has step_size. A mapping that is no call is {\"dict\":",
        {"masked": {"inner": "centralize", "mask": {"scale": {"kernel": True}}}},
    ),
    (
        ValueError,
        "stateless.f: gradtx has no function 'jnp.sign', nor has `names`.",
        {"stateless": {"f": {"function": "jnp.sign"}}},
    ),
    (
        ValueError,
        "partition.param_labels: gradtx has no function 'labels.rolls', nor has `names`. Did you mean 'labels.roles'?",
        {"partition": {"transforms": {}, "param_labels": {"function": "labels.rolls"}}},
    ),
    (TypeError, "masked.mask.dict must be a list of pairs", {"masked": {"inner": "centralize", "mask": {"dict": [1]}}}),
    (
        ValueError,
        "scale[0].array must have numbers as values, and a dtype",
        {"scale": [{"array": {"values": ["x"], "dtype": "float32"}}]},
    ),
]


@pytest.mark.parametrize("kind, message, config", WRONG, ids=[message[:60] for _, message, _ in WRONG])
def test_it_says_what_is_wrong_and_where(kind, message, config):
    with pytest.raises(kind, match=f"^`from_config`: {re.escape(message)}"):
        from_config(config)


OUT_OF_REACH = """minimize namespace namespace.importlib keys.np keys tree.get value.dataclasses __builtins__ os.system
    apply_updates global_norm inject_hyperparams labels.table tuning.best ..labels .""".split()


@pytest.mark.parametrize("name", OUT_OF_REACH)
def test_only_public_names_that_make_values_are_called(name):
    with pytest.raises(ValueError, match="that could be called here"):
        from_config({name: {}})
    with pytest.raises(ValueError, match="that could be called here"):
        gradtx.by_name(name)


def test_text_is_never_evaluated():
    with pytest.raises(TypeError, match="b1 must be a number"):
        from_config({"adamw": {"learning_rate": 1, "b1": "__import__('os').getpid()"}})


def by_rank(params):
    return params


@gradtx.transformation
class doubled(gradtx.GradientTransformation):
    """A user's own."""

    by: float = 2.0


def test_what_has_no_name_is_given_one():
    tx = gradtx.chain(doubled(3.0), gradtx.partition({1: gradtx.identity()}, by_rank))
    names = {"doubled": doubled, "by rank": by_rank}
    config = gradtx.to_config(tx, names)
    assert config["chain"][0] == {"doubled": {"by": 3.0}}
    assert config["chain"][1]["partition"]["param_labels"] == {"function": "by rank"}
    assert from_config(config, names) == tx
    assert from_config({"chain": ["doubled"]}, names) == gradtx.chain(doubled())
    with pytest.raises(ValueError, match="Did you mean 'doubled'"):
        from_config("doubledd", names)
    with pytest.raises(ValueError, match=r"names has \['adamw'\], which mean something else already"):
        from_config({"adamw": [1.0]}, {"adamw": doubled})


UNWRITABLE = [
    ("chain[1].stateless.f is <function", lambda: gradtx.chain(gradtx.clip(1.0), gradtx.stateless(by_rank))),
    ("scale_by_learning_rate.learning_rate is <function", lambda: gradtx.sgd(lambda t: 0.1)),
    ("stateless.f is <", lambda: gradtx.stateless(jnp.sign)),
    ("chain[1] is of the class doubled, which has no public name", lambda: gradtx.chain(gradtx.clip(1.0), doubled())),
    ("it is of the class Injected", lambda: gradtx.inject_hyperparams(gradtx.sgd)(0.1)),
]


@pytest.mark.parametrize("message, build", UNWRITABLE, ids=[message[:40] for message, _ in UNWRITABLE])
def test_what_has_no_name_is_an_error_that_says_so(message, build):
    with pytest.raises(TypeError, match=rf"^`to_config`: (chain\[\d\]\.)?{re.escape(message)}.*`names="):
        gradtx.to_config(build())


def test_by_name():
    assert gradtx.by_name("adamw", learning_rate="1e-3", b2=0.95, mask="kernel") == gradtx.adamw(
        1e-3, b2=0.95, mask="kernel"
    )
    rate = {"rex_schedule": {"init_value": 0.1, "decay_steps": 10}}
    assert gradtx.by_name("sgd", learning_rate=rate) == gradtx.sgd(gradtx.rex_schedule(0.1, 10))
    with pytest.raises(
        ValueError, match=r"^`by_name`: gradtx has no 'addam' that could be called here\. Did you mean 'adam"
    ):
        gradtx.by_name("addam")
    with pytest.raises(ValueError, match=r"^`by_name`: sgd has no argument 'lr'"):
        gradtx.by_name("sgd", lr=0.1)

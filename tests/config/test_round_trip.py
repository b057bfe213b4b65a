"""What `to_config` writes is data, and `from_config` builds an equal value of it."""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks import catalogue
from benchmarks.catalogue import CATALOGUE
from gradtx import labels, tuning
from gradtx.value import static
from tests.public import PUBLIC
from tests.schedules.cases import CASES

# What the catalogue's entries are made of beside public names: names for them, as a user gives.
NAMES = {
    f"catalogue.{name}": x
    for name, x in vars(catalogue).items()
    if name.startswith("_") and getattr(x, "__module__", "") == catalogue.__name__
}


def is_data(x):
    if isinstance(x, dict):
        return all(type(key) is str for key in x) and all(map(is_data, x.values()))
    return all(map(is_data, x)) if type(x) is list else x is None or type(x) in (bool, int, float, str)


def holds(x, names=None):
    config = gradtx.to_config(x, names)
    assert is_data(config), config
    for read in (config, json.loads(json.dumps(config, allow_nan=False))):
        again = gradtx.from_config(read, names)
        assert type(again) is type(x) and again == x and repr(again) == repr(x)
        assert jax.tree.structure(again) == jax.tree.structure(x)
    return config, again


@pytest.mark.parametrize("name", CATALOGUE)
def test_of_every_transformation(name):
    tx = CATALOGUE[name].build(gradtx)
    _, again = holds(tx, NAMES)
    assert hash(again) == hash(tx)


@pytest.mark.parametrize("name", CASES)
def test_of_every_schedule(name):
    schedule = CASES[name].schedule
    _, again = holds(schedule)
    assert hash(again) == hash(schedule)
    holds(gradtx.adamw(schedule, b1=schedule))


GROUPS = labels.groups({"a": ["^x", labels.rank(1, 2)], "b": labels.role("matrix") & ~labels.path("l") | "y", "c": ...})
NUMBERS = gradtx.MuonDimensionNumbers((0, 1), (2,))
VALUES = {
    "patterns": gradtx.adamw(1e-3, mask=["kernel$", "1e5"]),
    "a mask": gradtx.masked(gradtx.clip(1.0), {"scale": {"kernel": True}}),  # `scale` has no argument `kernel`
    "a mask's own words": gradtx.masked(gradtx.clip(1.0), {"function": {"dict": True, "array": False}}),
    "a word alone": gradtx.masked(gradtx.clip(1.0), {"dict": [True, False]}),
    "a label that is a name": gradtx.partition({"adam": gradtx.adam(1e-3)}, "adam"),
    "labels": gradtx.partition({3: gradtx.adam(1e-3), 4: gradtx.sgd(0.1)}, {"adam": {"x": 3, "y": 4}}),
    "groups": gradtx.partition(dict.fromkeys("abc", gradtx.identity()), GROUPS),
    "a mask of groups": gradtx.masked(gradtx.clip(1.0), GROUPS.mask("a", "b")),
    "roles": gradtx.partition({"matrix": gradtx.muon(0.1)}, labels.roles),
    "layers": gradtx.layerwise_decay(0.5, layer=r"layer_(\d+)"),
    "dimensions": gradtx.muon(0.1, muon_weight_dimension_numbers={"q": NUMBERS, "b": None}),
    "a dtype": gradtx.adam(1e-3, mu_dtype=jnp.bfloat16),
    "a key": gradtx.add_noise(0.1, 0.5, jax.random.key(7)),
    "a raw key": gradtx.add_noise(0.1, 0.5, jax.random.PRNGKey(7)),
    "a search space": gradtx.adamw(tuning.log_uniform(1e-4, 1e-1), tuning.choice([0.9, 0.95]), tuning.uniform(0, 0.9)),
    "a distribution": tuning.choice([1, 2, 3]),
    "a monitor": gradtx.monitor(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.lion(1e-4))),
    "measures": gradtx.monitor({"norm": gradtx.global_norm, "ema": gradtx.measure_with_ema(gradtx.global_norm, 0.9)}),
    "a function": gradtx.MultiSteps(gradtx.sgd(0.1), 2, should_skip_update_fn=gradtx.skip_not_finite),
    "names": gradtx.chain(gradtx.named_chain(("a", gradtx.clip(1.0)), ("b", gradtx.named_chain()))),
    "a number with all its digits": gradtx.scale(0.1 + 0.2),
    "infinite": gradtx.apply_if_finite(gradtx.clip(1.0)),
}


@pytest.mark.parametrize("name", VALUES)
def test_of(name):
    _, again = holds(VALUES[name])
    assert hash(again) == hash(VALUES[name])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_of_arrays(dtype):
    rates = np.array([0.1, 1e-30, 1e30]).astype(jnp.dtype(dtype))
    _, again = holds(gradtx.sgd(rates))
    assert again.links[0].learning_rate.dtype == dtype


def test_an_infinite_number_is_text():
    @gradtx.transformation
    class limits(gradtx.GradientTransformation):
        low: float = static(default=-np.inf)

    assert gradtx.to_config(limits(), {"limits": limits}) == {"limits": {}}
    assert gradtx.to_config(limits(np.inf), {"limits": limits}) == {"limits": {"low": "inf"}}
    assert gradtx.from_config({"limits": {"low": "inf"}}, {"limits": limits}).low == np.inf


def test_it_is_as_a_person_writes():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(gradtx.rex_schedule(0.1, 10)))
    assert gradtx.to_config(tx) == {
        "chain": [
            {"clip_by_global_norm": {"max_norm": 1.0}},
            {"scale_by_adam": {}},
            {"add_decayed_weights": {"weight_decay": 1e-4}},
            {"scale_by_learning_rate": {"learning_rate": {"rex_schedule": {"init_value": 0.1, "decay_steps": 10}}}},
        ]
    }


ALIASES = [
    name
    for name, x in PUBLIC.items()
    if inspect.isfunction(x)
    and list(inspect.signature(x).parameters)[:1] == ["learning_rate"]
    and all(p.default is not p.empty for p in list(inspect.signature(x).parameters.values())[1:])
]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ALIASES)
def test_every_alias_has_its_name(name):
    want = PUBLIC[name](learning_rate=0.5)
    assert gradtx.by_name(name, learning_rate="0.5") == want
    assert gradtx.from_config({name: {"learning_rate": 0.5}}) == want == gradtx.from_config({name: [0.5]})

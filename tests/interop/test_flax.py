"""In Flax: as the `tx` of `TrainState`, and of `nnx.Optimizer`."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx import sharding

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)
Y = X[:, :2] * 2 - 1


def matrices(params):
    return jax.tree.map(lambda p: p.ndim > 1, params)


def falling(step):
    return 0.05 / (1 + step)


METHODS = {
    "adamw": lambda lib: lib.adamw(0.05, mask=matrices),
    "adafactor": lambda lib: lib.adafactor(0.05, min_dim_size_to_factor=2),
    "partition": lambda lib: lib.partition({True: lib.adam(0.05), False: lib.sgd(0.05, momentum=0.9)}, matrices),
    "masked": lambda lib: lib.chain(lib.masked(lib.clip_by_global_norm(0.1), matrices), lib.lion(0.01)),
    "MultiSteps": lambda lib: lib.MultiSteps(lib.adam(0.05), 2).gradient_transformation(),
    "injected": lambda lib: lib.inject_hyperparams(lib.adamw)(learning_rate=falling),
    "clip + sgd": lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.sgd(0.05, momentum=0.9)),
}


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_train_state_trains_as_with_optax_in_one_trace(make):
    traces = []

    @jax.jit
    def step(state):
        traces.append(state)
        loss = lambda p: jnp.mean((state.apply_fn({"params": p}, X) - Y) ** 2)
        return state.apply_gradients(grads=jax.grad(loss)(state.params))

    model = nn.Dense(2)
    params = model.init(jax.random.key(0), X)["params"]
    results, apply = [], model.apply
    for lib in (gradtx, gradtx, optax):  # built anew, ours is equal to itself
        state = TrainState.create(apply_fn=apply, params=params, tx=make(lib))
        for _ in range(3):
            state = step(state)
        results.append(state.params)
    # float32 rounding in another order of operations
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), results[0], results[2])
    assert len(traces) == 2  # one of them Optax's


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_nnx_optimizer_trains_as_with_optax(make):
    results = []
    for lib in (gradtx, optax):
        model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
        optimizer = nnx.Optimizer(model, make(lib), wrt=nnx.Param)

        @nnx.jit
        def step(model, optimizer):
            grads = nnx.grad(lambda m: jnp.mean((m(X) - Y) ** 2))(model)
            optimizer.update(model, grads)

        for _ in range(3):
            step(model, optimizer)
        results.append(nnx.to_pure_dict(nnx.state(model)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *results)


def test_extra_arguments_pass_through_nnx_optimizer():
    model, seen = nnx.Linear(4, 2, rngs=nnx.Rngs(0)), []
    spy = gradtx.GradientTransformation(lambda p: (), lambda u, s, p=None, *, value: (seen.append(value), (u, s))[1])
    tx = gradtx.partition({True: gradtx.chain(spy, gradtx.sgd(0.1)), False: gradtx.set_to_zero()}, matrices)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    optimizer.update(model, nnx.state(model, nnx.Param), value=3.0)
    assert seen == [3.0]


def test_a_path_mask_in_nnx():
    model = nnx.Linear(4, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, gradtx.adamw(0.1, weight_decay=1.0, mask="kernel"), wrt=nnx.Param)
    zero = jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param))
    before = jnp.array(model.kernel[...])
    model.bias[...] = jnp.ones(2)
    optimizer.update(model, zero)
    np.testing.assert_allclose(model.kernel[...], before * 0.9, rtol=1e-6)
    assert model.bias[...].tolist() == [1.0, 1.0]


WIDE = jax.random.normal(jax.random.key(1), (64, 256))
LAYOUT = ("fsdp", "tensor")


def annotated(how):
    """A layer of 256 x 128, told where it lies on the mesh as Flax lets one say it."""
    if how == "with_partitioning":
        says = lambda init, axes: {"init": nnx.with_partitioning(init, axes)}
    else:
        says = lambda init, axes: {"init": init, "metadata": {how: axes}}
    kernel, bias = says(nnx.initializers.lecun_normal(), LAYOUT), says(nnx.initializers.zeros_init(), LAYOUT[1:])
    told = {f"kernel_{key}": x for key, x in kernel.items()} | {f"bias_{key}": x for key, x in bias.items()}
    return nnx.Linear(256, 128, rngs=nnx.Rngs(0), **told)


def placed(mesh):
    """The same layer with nothing said: its arrays lie where they were put."""
    model = nnx.Linear(256, 128, rngs=nnx.Rngs(0))
    for variable, spec in ((model.kernel, P(*LAYOUT)), (model.bias, P(*LAYOUT[1:]))):
        variable.set_value(jax.device_put(variable[...], NamedSharding(mesh, spec)))
    return model


def trained(model, x):
    """Three steps of Adafactor; the model, and its optimizer."""
    optimizer = nnx.Optimizer(model, gradtx.adafactor(0.05), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda m: jnp.mean((m(x) - 1) ** 2))(model))

    for _ in range(3):
        step(model, optimizer)
    return model, optimizer


@pytest.mark.filterwarnings("ignore:'sharding_names' is deprecated")
@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=str)
@pytest.mark.parametrize("how", ["placed", "with_partitioning", "out_sharding", "sharding_names"])
def test_factored_moments_in_nnx_optimizer_lie_on_the_mesh(how, axis_type):
    alone, _ = trained(nnx.Linear(256, 128, rngs=nnx.Rngs(0)), WIDE)
    mesh = jax.make_mesh((4, 2), LAYOUT, (axis_type,) * 2)
    with jax.set_mesh(mesh):
        model = placed(mesh) if how == "placed" else annotated(how)
        model, optimizer = trained(model, jax.device_put(WIDE, NamedSharding(mesh, P())))
    for mine, theirs in ((model.kernel, alone.kernel), (model.bias, alone.bias)):
        # sums in another order; a step is 0.05 of the parameters' size
        np.testing.assert_allclose(mine[...], theirs[...], rtol=1e-4, atol=1e-6)
    assert model.kernel[...].sharding.is_equivalent_to(NamedSharding(mesh, P(*LAYOUT)), 2)
    factored = optimizer.opt_state["scale_by_factored_rms"]
    assert factored.v_row["kernel"][...].shape == (128,) and factored.v_col["kernel"][...].shape == (256,)


def test_on_mesh_in_nnx_optimizer():
    """It is built of variables, and updated with the arrays in them."""
    mesh = jax.make_mesh((4, 2), LAYOUT, (AxisType.Auto,) * 2)
    model = nnx.Linear(8, 16, rngs=nnx.Rngs(0))
    places = {"kernel": NamedSharding(mesh, P(*LAYOUT)), "bias": NamedSharding(mesh, P())}
    model.kernel[...], model.bias[...] = (jax.device_put(getattr(model, k)[...], places[k]) for k in ("kernel", "bias"))
    optimizer = nnx.Optimizer(model, sharding.on_mesh(gradtx.lamb(1e-2), nnx.state(model)), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        optimizer.update(model, nnx.grad(lambda m: jnp.mean(m(jnp.eye(8)) ** 2))(model))

    step(model, optimizer)
    moment = optimizer.opt_state["scale_by_lamb"].mu["kernel"][...]
    assert moment.sharding.is_equivalent_to(places["kernel"], 2) and jnp.any(moment != 0)

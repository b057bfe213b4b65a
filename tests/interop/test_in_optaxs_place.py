"""With gradtx in Optax's place, `sys.modules["optax"] = gradtx`, what uses Optax imports, and trains to its numbers.

Each program runs in a process of its own, once with either library, and prints the numbers that it ends at.
"""

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

IN_PLACE = """
import sys, warnings
warnings.simplefilter("ignore")
import gradtx
for name in list(sys.modules):
    if name == "gradtx" or name.startswith("gradtx."):
        sys.modules["optax" + name[len("gradtx"):]] = sys.modules[name]
class Forward:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "optax":
            import importlib, importlib.util
            module = importlib.import_module("gradtx" + name[len("optax"):])
            class Loader:
                create_module = staticmethod(lambda spec: module)
                exec_module = staticmethod(lambda module: None)
            return importlib.util.spec_from_loader(name, Loader())
sys.meta_path.insert(0, Forward())
"""

TRAIN_STATE = """
import jax, jax.numpy as jnp, optax, json
from flax.training.train_state import TrainState
loss = lambda params, x: jnp.mean((x @ params["w"] - 1) ** 2)
tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(0.1, 0.0, 20)))
state = TrainState.create(apply_fn=loss, params={"w": jnp.ones((3, 2))}, tx=tx)
x = jnp.linspace(-1, 1, 12).reshape(4, 3)
for _ in range(10):
    state = state.apply_gradients(grads=jax.grad(loss)(state.params, x))
print(json.dumps(state.params["w"].ravel().tolist()))
"""

NNX = """
import jax, jax.numpy as jnp, optax, json
from flax import nnx
class Net(nnx.Module):
    def __init__(self, rngs):
        self.first, self.second = nnx.Linear(3, 4, rngs=rngs), nnx.Linear(4, 2, rngs=rngs)
    def __call__(self, x):
        return self.second(jnp.tanh(self.first(x)))
net = Net(nnx.Rngs(0))
labels = lambda params: jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "rest", params)
groups = {"matrix": optax.adafactor(0.1, min_dim_size_to_factor=2), "rest": optax.sgd(0.1)}
tx = optax.chain(optax.clip_by_global_norm(1.0), optax.partition(groups, labels))
optimizer = nnx.Optimizer(net, tx, wrt=nnx.Param)
x = jnp.linspace(-1, 1, 12).reshape(4, 3)
@nnx.jit
def step(net, optimizer):
    optimizer.update(net, nnx.grad(lambda net: jnp.mean((net(x) - 1) ** 2))(net))
for _ in range(10):
    step(net, optimizer)
print(json.dumps(net(x).ravel().tolist()))
"""

NUMPYRO = """
import jax, jax.numpy as jnp, optax, json, numpyro
from numpyro.infer import SVI, Trace_ELBO
import numpyro.distributions as dist
def model(x):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    numpyro.sample("x", dist.Normal(mu, 1), obs=x)
def guide(x):
    loc = numpyro.param("loc", 0.0)
    numpyro.sample("mu", dist.Normal(loc, 0.1))
svi = SVI(model, guide, optax.adam(0.1), Trace_ELBO())
result = svi.run(jax.random.key(0), 20, jnp.array([1.0, 2.0]), progress_bar=False)
print(json.dumps([float(result.params["loc"]), *map(float, result.losses[-3:])]))
"""

PPO = """
import jax, jax.numpy as jnp, optax, json
tx = optax.inject_hyperparams(lambda learning_rate: optax.chain(
    optax.clip_by_global_norm(0.5), optax.adam(learning_rate, eps=1e-5)))(learning_rate=0.1)
params = target = {"policy": jnp.ones((3, 2)), "value": jnp.zeros(3)}
state = tx.init(params)
@jax.jit
def update(params, target, state, t):
    state.hyperparams["learning_rate"] = 0.1 * (1 - t / 10)
    grads = jax.tree.map(lambda p: jnp.sin(p + t), params)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
    return params, optax.incremental_update(params, target, 0.05), state, optax.global_norm(grads)
for t in range(10):
    params, target, state, norm = update(params, target, state, jnp.float32(t))
mu = optax.tree_utils.tree_get(state, "mu")
count = optax.tree_utils.tree_get(state.inner_state, "count")
print(json.dumps([*params["policy"].ravel().tolist(), *target["value"].tolist(), float(norm),
                  *mu["value"].tolist(), float(state.hyperparams["learning_rate"]), int(count)]))
"""

OPTIMISTIX = """
import jax, jax.numpy as jnp, optax, json, optimistix
loss = lambda p, _: jnp.sum((p - jnp.arange(3.0)) ** 2)
solver = optimistix.OptaxMinimiser(optax.adam(0.1), rtol=1e-3, atol=1e-3)
found = optimistix.minimise(loss, solver, jnp.ones(3), max_steps=500)
print(json.dumps([*found.value.tolist(), int(found.stats["num_steps"])]))
"""

HAIKU = """
import jax, jax.numpy as jnp, optax, json, haiku as hk
net = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(2)(jnp.tanh(hk.Linear(4)(x)))))
x = jnp.linspace(-1, 1, 12).reshape(4, 3)
params = net.init(jax.random.key(0), x)
tx = optax.adamw(0.1, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
state = tx.init(params)
for _ in range(10):
    grads = jax.grad(lambda p: jnp.mean(optax.huber_loss(net.apply(p, x), jnp.ones((4, 2)))))(params)
    updates, state = tx.update(grads, state, params)
    params = optax.apply_updates(params, updates)
print(json.dumps(net.apply(params, x).ravel().tolist()))
"""

PROGRAMS = {
    "flax.training": (TRAIN_STATE, "flax"),
    "flax.nnx": (NNX, "flax"),
    "numpyro": (NUMPYRO, "numpyro"),
    "a PPO loop": (PPO, "jax"),
    "optimistix": (OPTIMISTIX, "optimistix"),
    "haiku": (HAIKU, "haiku"),
}


def start(program):
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def printed(process):
    out, err = process.communicate()
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_ends_at_optaxs_numbers(name):
    program, package = PROGRAMS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    ours, theirs = map(printed, map(start, [IN_PLACE + program, program]))
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)  # ten to a hundred steps in float32 from each other


@pytest.mark.parametrize(
    "name, written", [("numpyro", "interop.as_optax(gradtx.adam(0.1))"), ("optimistix", "gradtx.adam(0.1)")]
)
def test_a_program_that_keeps_optax_takes_one_of_ours(name, written):
    program, package = PROGRAMS[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    changed = "import gradtx; from gradtx import interop\n" + program.replace("optax.adam(0.1)", written)
    assert "optax.adam" not in changed
    ours, theirs = map(printed, map(start, [changed, program]))
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=1e-5)  # as above


LIBRARIES = ["flax.nnx", "flax.training", "numpyro", "optimistix", "haiku", "ott.solvers", "orbax.checkpoint"]


@pytest.mark.parametrize("module", LIBRARIES)
def test_a_library_imports(module):
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        pytest.skip(f"{module} is not installed")
    printed(start(f"{IN_PLACE}\nimport {module}; import optax; assert optax.__name__ == 'gradtx'; print([])"))

"""Fits a decaying oscillation to 200 noisy points, by L-BFGS, by Newton's method, and once more for 100 data sets.

python -m examples.minimize
"""

import jax
import jax.numpy as jnp

import gradtx

t = jnp.linspace(0, 10, 200)
truth = {"amplitude": 2.0, "decay": 0.3, "frequency": 1.5, "offset": 0.5}
start = {"amplitude": 1.0, "decay": 0.1, "frequency": 1.4, "offset": 0.0}


def model(p):
    """An oscillation that decays, at every time."""
    return p["amplitude"] * jnp.exp(-p["decay"] * t) * jnp.cos(p["frequency"] * t) + p["offset"]


def loss(p, data):
    """The mean squared error, and the residuals."""
    residuals = model(p) - data
    return jnp.mean(residuals**2), residuals


noise = 0.1 * jax.random.normal(jax.random.key(0), (100, t.size))
data = model(truth) + noise

newton = gradtx.chain(gradtx.newton(), gradtx.scale_by_zoom_linesearch(20))
for tx in (gradtx.lbfgs(), newton):
    result = gradtx.minimize(loss, start, tx, args=(data[0],), tol=1e-4, has_aux=True)
    found = ", ".join(f"{name} {x:.3f}" for name, x in result.params.items())
    print(f"{tx}\n  {found}\n  {result.steps} steps, residuals of {jnp.std(result.aux):.3f}\n")

fit = lambda data: gradtx.minimize(loss, start, newton, args=(data,), tol=1e-4, has_aux=True)
fits = jax.jit(jax.vmap(fit))(data)  # one program for all of them
print(f"100 data sets: {int(fits.converged.sum())} fitted, in {int(fits.steps.max())} steps or fewer")
for name, x in fits.params.items():
    print(f"  {name:9} {x.mean():.4f} ± {x.std():.4f}, in truth {truth[name]}")

"""torch.optim's steps on the CPU under the names of RECIPES, where torch is installed and has the method."""

import os
import time
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

INSTALL = "pip install torch"

FORMS = ("fused", "foreach")
FUSED = {"SGD", "Adam", "AdamW", "Adagrad"}  # on the CPU

# The hyperparameters are those of RECIPES. Some formulas differ a little: torch adds RMSprop's eps outside the root,
# lets NAdam's b1 grow, corrects AMSGrad's bias after the maximum, and in Adafactor factors small matrices too.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "sgd": ("SGD", {"lr": 0.01, "momentum": 0.9}),
    "sgd nesterov": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    "momentum": ("SGD", {"lr": 0.01, "momentum": 0.9}),
    "adam": ("Adam", {"lr": 1e-3}),
    "adamw": ("AdamW", {"lr": 1e-3, "weight_decay": 0.01}),
    "clip+adamw": ("AdamW", {"lr": 1e-3, "weight_decay": 0.01}),
    "adafactor": ("Adafactor", {"lr": 0.01}),
    "rmsprop": ("RMSprop", {"lr": 1e-3, "alpha": 0.9}),
    "rmsprop centered": ("RMSprop", {"lr": 1e-3, "alpha": 0.9, "centered": True, "momentum": 0.9}),
    "adagrad": ("Adagrad", {"lr": 0.01, "initial_accumulator_value": 0.1, "eps": 1e-7}),
    "amsgrad": ("Adam", {"lr": 1e-3, "amsgrad": True}),
    "radam": ("RAdam", {"lr": 1e-3}),
    "nadam": ("NAdam", {"lr": 1e-3}),
    "nadamw": ("NAdam", {"lr": 1e-3, "weight_decay": 0.01, "decoupled_weight_decay": True}),
    "adamax": ("Adamax", {"lr": 1e-3}),
}


def installed() -> bool:
    return find_spec("torch") is not None


def forms(recipe: str) -> list[str]:
    """The forms of a recipe that can be measured here."""
    if recipe not in METHODS or not installed() or jax.default_backend() != "cpu":
        return []
    return [form for form in FORMS if form == "foreach" or METHODS[recipe][0] in FUSED]


class TorchRunner:
    """torch's optimizer with the parameters it works on: the counterpart of `step_time.Runner`."""

    def __init__(self, form: str, recipe: str, params: Any, grads: Any) -> None:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch starts its threads
        self.torch: Any = import_module("torch")
        self.torch.set_num_threads(os.cpu_count() or 1)
        self.clips = recipe.startswith("clip+")
        self.params = [self._tensor(p).requires_grad_() for p in jax.tree.leaves(params)]
        self.grads = [self._tensor(g) for g in jax.tree.leaves(grads)]
        name, hyperparameters = METHODS[recipe]
        self.optimizer = getattr(self.torch.optim, name)(self.params, **hyperparameters, **{form: True})
        for p in self.params:
            p.grad = self.torch.empty_like(p)

    def _tensor(self, x: jax.Array) -> Any:
        return self.torch.from_numpy(np.array(x))

    def step(self) -> None:
        if self.clips:
            self.torch.nn.utils.clip_grad_norm_(self.params, 1.0, foreach=True)
        self.optimizer.step()

    def seconds(self) -> float:
        """Takes one step and returns how long it took, given fresh gradients: clips and Nesterov write into them."""
        for p, g in zip(self.params, self.grads, strict=True):
            p.grad.copy_(g)
        start = time.perf_counter()
        self.step()
        return time.perf_counter() - start

"""Where the semantics agree, the updates are torch.optim's: both libraries in one process, twelve steps in float64."""

import numpy as np
import pytest

import gradtx
from tests.oracle import COUPLING, assert_close, data, run_tx

torch = pytest.importorskip("torch")

# Both follow one formula in float64 and differ in the order of operations, by some 1e-16 a step.
TOLERANCE = 1e-11

# torch's names for one method and ours. Left out, because torch means something else: NAdam (its momentum follows a
# schedule), AMSGrad (its maximum is of uncorrected squares, then corrected), Adagrad and RMSprop with an eps inside.
PAIRS = {
    "SGD": (lambda ps: torch.optim.SGD(ps, lr=0.1), lambda: gradtx.sgd(0.1)),
    "SGD, momentum": (lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9), lambda: gradtx.sgd(0.1, 0.9)),
    "SGD, nesterov, decay": (
        lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.3),
        lambda: gradtx.chain(gradtx.add_decayed_weights(0.3), gradtx.sgd(0.1, 0.9, nesterov=True)),
    ),
    "Adam": (lambda ps: torch.optim.Adam(ps, lr=0.1, eps=1e-3), lambda: gradtx.adam(0.1, eps=1e-3)),
    "Adam, decay in the gradient": (
        lambda ps: torch.optim.Adam(ps, lr=0.1, weight_decay=0.3),
        lambda: gradtx.chain(gradtx.add_decayed_weights(0.3), gradtx.adam(0.1)),
    ),
    "AdamW": (
        lambda ps: torch.optim.AdamW(ps, lr=0.1, betas=(0.8, 0.99), weight_decay=0.3),
        lambda: gradtx.adamw(0.1, 0.8, 0.99, weight_decay=0.3),
    ),
    "Adamax": (
        lambda ps: torch.optim.Adamax(ps, lr=0.1, betas=(0.9, 0.8), eps=1e-3),
        lambda: gradtx.adamax(0.1, 0.9, 0.8, 1e-3),
    ),
    # Its eps is added before the correction of the square and so differs from ours; without one they agree.
    "RAdam": (lambda ps: torch.optim.RAdam(ps, lr=0.1, eps=0.0), lambda: gradtx.radam(0.1, eps=0.0)),
    # Its eps is outside the root, ours inside; without one they agree.
    "Adagrad": (
        lambda ps: torch.optim.Adagrad(ps, lr=0.1, initial_accumulator_value=0.1, eps=0.0),
        lambda: gradtx.adagrad(0.1, eps=0.0),
    ),
    "RMSprop": (
        lambda ps: torch.optim.RMSprop(ps, lr=0.1, alpha=0.95, eps=1e-3),
        lambda: gradtx.rmsprop(0.1, 0.95, 1e-3, eps_in_sqrt=False),
    ),
    "RMSprop, centred, momentum": (
        lambda ps: torch.optim.RMSprop(ps, lr=0.1, alpha=0.9, eps=0.05, centered=True, momentum=0.9),
        lambda: gradtx.rmsprop(0.1, 0.9, 0.05, eps_in_sqrt=False, centered=True, momentum=0.9),
    ),
    # Its rate is at most 1 / sqrt(t), and its decay is multiplied by that rate.
    "Adafactor": (
        lambda ps: torch.optim.Adafactor(ps, lr=0.05, eps=(1e-30, 1e-3), weight_decay=0.3),
        lambda: gradtx.adafactor(0.05, min_dim_size_to_factor=1, weight_decay_rate=0.05 * 0.3),
    ),
}


def run_torch(build, params, drift):
    """The updates of every step, stacked, and the last parameters."""
    leaves = {path: torch.nn.Parameter(torch.tensor(p)) for path, p in params.items()}
    optimizer = build(list(leaves.values()))
    history = {path: [] for path in params}
    for t in range(len(next(iter(drift.values())))):
        before = {path: leaf.detach().clone() for path, leaf in leaves.items()}
        for path, leaf in leaves.items():
            leaf.grad = COUPLING * before[path] + torch.tensor(drift[path][t])
        optimizer.step()
        for path, leaf in leaves.items():
            history[path].append((leaf.detach() - before[path]).numpy())
    last = {path: leaf.detach().numpy() for path, leaf in leaves.items()}
    return {path: np.stack(us) for path, us in history.items()}, last


@pytest.mark.parametrize("name", PAIRS)
def test_the_method_of_the_same_meaning_makes_the_same_updates(name):
    theirs, ours = PAIRS[name]
    params, drift = data({"kernel": (4, 3), "bias": (3,)})
    want, want_last = run_torch(theirs, params, drift)
    got, got_last = run_tx(ours(), params, drift, "float64")
    assert_close(got, want, TOLERANCE)
    assert_close(got_last, want_last, TOLERANCE, "the last value")


def test_clip_by_global_norm_is_torchs_but_for_its_millionth():
    """torch divides by the norm plus 1e-6, which at a norm of about five is two parts in ten million."""
    params, drift = data({"kernel": (4, 3), "bias": (3,)})
    leaves = [torch.nn.Parameter(torch.tensor(p)) for p in params.values()]
    for leaf, d in zip(leaves, drift.values(), strict=True):
        leaf.grad = torch.tensor(d[0])
    torch.nn.utils.clip_grad_norm_(leaves, 1.0)
    first = {path: d[:1] for path, d in drift.items()}
    got, _ = run_tx(gradtx.clip_by_global_norm(1.0), params, first, "float64", coupling=0.0)
    for path, leaf in zip(params, leaves, strict=True):
        np.testing.assert_allclose(got[path][0], leaf.grad.numpy(), rtol=1e-6, err_msg=path)
        assert np.all(np.abs(got[path][0]) >= np.abs(leaf.grad.numpy()))

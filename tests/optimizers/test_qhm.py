"""qhm: Ma, Yarats 2019, section 3 (arXiv 1810.06801)."""

import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def qhm(lr, beta=0.999, nu=0.7):
    """g = beta g + (1 - beta) grad; theta = theta - alpha ((1 - nu) grad + nu g)."""

    @leafwise
    def rule(p):
        m = np.zeros_like(p)

        def step(g, p, t):
            nonlocal m
            m = beta * m + (1 - beta) * g
            return -lr * ((1 - nu) * g + nu * m)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"beta": 0.5, "nu": 0.25}, {"beta": 0.0}, {"beta": 0.9, "nu": 1.0}])
def test_the_step_is_between_the_gradient_and_its_mean(options, precision):
    check(gradtx.qhm(0.1, **options), qhm(0.1, **options), precision)


def test_complex_gradients_are_averaged():
    check(gradtx.qhm(0.1, 0.9), qhm(0.1, 0.9), complex_leaves=("dense/kernel",))


@pytest.mark.parametrize(
    ("nu", "same"),
    [
        (0.0, gradtx.sgd(0.1)),
        (1.0, gradtx.sgd(0.1 * 0.2, 0.8)),
        (0.8, gradtx.sgd(0.1 * 0.2, 0.8, nesterov=True)),
    ],
    ids=["gradient descent", "momentum", "nesterov"],
)
def test_it_holds_gradient_descent_momentum_and_nesterov(nu, same):
    check_same(gradtx.qhm(0.1, 0.8, nu), same)


@pytest.mark.parametrize(("argument", "value"), [("beta", 1.0), ("nu", 1.5)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_qhm`.*{argument}.*{value}"):
        gradtx.scale_by_qhm(**{argument: value})

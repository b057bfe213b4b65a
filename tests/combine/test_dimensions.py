"""Dimension numbers: the forms that users give, their values, errors that name the leaf."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gradtx
from gradtx.combine.dimensions import (
    all_matrices,
    as_dimension_numbers,
    dimension_numbers,
    divided,
    matrix_axes,
    undivided,
)


class Numbers(NamedTuple):
    reduction_axis: int | list | tuple = 0
    output_axis: int | list | tuple = 1


PARAMS = {"heads": jnp.ones((2, 3, 4)), "dense": {"kernel": jnp.ones((3, 5)), "bias": jnp.ones(5)}}
TREE = {"heads": Numbers(0, [1, 2]), "dense": {"kernel": Numbers(1, 0), "bias": None}}
ORDER = ("bias", "kernel", "heads")  # of the leaves: dicts are sorted


def stored(numbers):
    return as_dimension_numbers("f", "numbers", numbers)


def found(numbers, params=PARAMS, **kwargs):
    axes = matrix_axes(stored(numbers), params, "f", **kwargs)
    return dict(zip(ORDER, axes, strict=True))


def test_without_any_a_matrix_has_rows_and_columns_and_nothing_else_has():
    assert found(None) == {"bias": None, "kernel": ((), ((0,), (1,))), "heads": None}
    assert dimension_numbers(None, PARAMS, "f") == [None, (0, 1), None]


@pytest.mark.parametrize("numbers", [TREE, lambda params: TREE, lambda params: TREE | {"heads": Numbers(0, (1, -1))}])
def test_a_tree_or_a_function_gives_each_leaf_its_own(numbers):
    assert found(numbers) == {"bias": None, "kernel": ((), ((1,), (0,))), "heads": ((), ((0,), (1, 2)))}


def test_a_function_is_given_shapes_alone():
    seen = []
    found(lambda params: seen.append(params) or TREE)
    assert all(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(seen[0]))


def test_one_is_for_all_leaves_and_a_part_of_the_tree_for_what_is_below():
    params = {"a": jnp.ones((2, 3, 4)), "b": {"c": jnp.ones((2, 3))}}
    assert matrix_axes(stored(Numbers(1, 0)), params, "f") == [((2,), ((1,), (0,))), ((), ((1,), (0,)))]
    assert matrix_axes(stored({"a": None, "b": Numbers()}), params, "f") == [None, ((), ((0,), (1,)))]


def test_the_container_does_not_matter():
    state = nnx.State({"dense": {"kernel": nnx.Param(jnp.ones((3, 5))), "bias": nnx.Param(jnp.ones(5))}})
    tree = {"dense": {"kernel": Numbers(1, 0), "bias": None}}
    assert matrix_axes(stored(tree), state, "f") == [None, ((), ((1,), (0,)))]


def test_they_are_values():
    one, other = stored(TREE), stored({"dense": {"bias": None, "kernel": Numbers(1, 0)}, "heads": Numbers(0, (1, 2))})
    assert one == other and hash(one) == hash(other) and stored(one) is one
    assert eval(repr(one), {"Numbers": Numbers}) == TREE | {"heads": Numbers(0, (1, 2))}


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"dense": {"kernel": Numbers(), "bias": None}}, "no entry for 'heads'"),
        (TREE | {"heads": Numbers(0, 3)}, "the parameter 'heads' is no matrix: it has 3 dimensions"),
        (TREE | {"heads": Numbers(0, (0, 1))}, "the parameter 'heads' is no matrix: .* named twice"),
        (Numbers(), "the parameter 'dense/bias' is no matrix"),
    ],
)
def test_what_does_not_fit_is_named(numbers, message):
    with pytest.raises(ValueError, match=f"`f`: .*{message}"):
        found(numbers)


def test_what_is_no_dimension_number_is_an_error():
    with pytest.raises(TypeError, match=r"`f`: numbers must hold dimension numbers, .*got \(0, 1\)|got 0"):
        stored({"a": (0, 1)})
    with pytest.raises(TypeError, match="got 'a'"):
        stored("a")


def test_axes_that_are_left_are_a_batch_or_an_error():
    batched = TREE | {"heads": Numbers(1, 2)}
    assert found(batched)["heads"] == ((0,), ((1,), (2,)))
    with pytest.raises(ValueError, match=r"the dimension numbers of 'heads', .* must name each of its 3 dimensions"):
        found(batched, batch=False)


def test_where_all_must_be_matrices_one_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"`f`: the parameter 'dense/bias' of shape \(5,\) is no matrix"):
        all_matrices(None, {"dense": PARAMS["dense"]}, "f")
    assert all_matrices(None, {"kernel": PARAMS["dense"]["kernel"]}, "f") == [((), ((0,), (1,)))]


def test_matrices_that_lie_side_by_side_are_a_batch():
    x = jnp.arange(2 * 12.0).reshape(2, 12)
    numbers = gradtx.MuonDimensionNumbers(0, 1, parts={-1: 4})
    ((y, axes),) = divided(stored({"qkv": numbers}), {"qkv": x}, "f")
    assert axes == ((1,), ((0,), (2,))) and y.shape == (2, 4, 3)
    for i, part in enumerate(jnp.split(x, 4, axis=1)):
        assert jnp.array_equal(y[:, i], part)
    assert jnp.array_equal(undivided(y, x), x)
    ((y, _),) = divided(stored(numbers), jax.eval_shape(lambda: x), "f")
    assert y.shape == (2, 4, 3)


def test_parts_of_rows_and_of_several_axes():
    x = jnp.ones((6, 2, 10))
    ((y, axes),) = divided(stored(gradtx.MuonDimensionNumbers((0, 1), 2, parts={0: 3, 2: 5})), x, "f")
    assert axes == ((0, 3), ((1, 2), (4,))) and y.shape == (3, 2, 2, 5, 2)


def test_parts_are_values_that_print():
    one, other = (stored(gradtx.MuonDimensionNumbers(0, [1], parts)) for parts in ({1: 4, 0: 2}, [(0, 2), (1, 4)]))
    assert one == other and hash(one) == hash(other)
    assert stored(eval(repr(one), vars(gradtx) | {"MuonDimensionNumbers": gradtx.MuonDimensionNumbers})) == one


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({1: 5}, "axis 1 of 'x', shape .2, 12., has not 5 equal parts"),
        ({2: 2}, "the parameter 'x' is no matrix"),
        ({1: 0}, "0"),
    ],
)
def test_parts_that_do_not_fit_are_named(parts, message):
    with pytest.raises(ValueError, match=f"`f`: .*{message}"):
        divided(stored(gradtx.MuonDimensionNumbers(parts=parts)), {"x": jnp.ones((2, 12))}, "f")


def test_what_knows_no_parts_says_so():
    with pytest.raises(ValueError, match="`f`: 'x' has parts, which it does not know"):
        matrix_axes(stored(gradtx.MuonDimensionNumbers(parts={1: 2})), {"x": jnp.ones((2, 12))}, "f")

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.value import Function, Value, flag, number, static, storage_dtype, value


@value
class point(Value):
    """A value with a field of every kind."""

    x: float = number(default=1.0, within="[0, 2)")
    steps: int = number(default=3, within="[0, inf)", integer=True)
    bound: float | None = number(default=None, optional=True)
    mode: str = static(default="a", one_of=("a", "b"))
    quick: bool = flag(default=False, kw_only=True)
    dtype: str | None = storage_dtype(default=None, kw_only=True)


def test_numbers_are_leaves_and_the_rest_is_structure():
    p = point(0.5, mode="b")
    assert jax.tree.leaves(p) == [0.5, 3]
    assert jax.tree.structure(p) != jax.tree.structure(point(0.5))
    assert jax.tree.structure(p) == jax.tree.structure(point(1.5, mode="b"))
    assert [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(p)[0]] == [".x", ".steps"]


def test_it_prints_what_differs_from_the_defaults():
    assert repr(point()) == "point()"
    assert repr(point(0.5, bound=2, dtype=jnp.bfloat16)) == "point(x=0.5, bound=2.0, dtype='bfloat16')"


def test_numpy_numbers_and_ints_become_python_floats():
    for x in (1, np.float64(1.0), np.int32(1), np.array(1.0)):
        assert point(x) == point() and type(point(x).x) is float
    assert type(point(steps=np.int64(4)).steps) is int


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": -0.1}, ValueError, r"`point`: x must lie in \[0, 2\), got -0.1"),
        ({"x": 2}, ValueError, r"`point`: x must lie in \[0, 2\), got 2"),
        ({"x": float("nan")}, ValueError, "x must lie in"),
        ({"x": "1"}, TypeError, r"`point`: x must be a number, an array or a schedule .* got '1' of type str"),
        ({"x": True}, TypeError, "x must be a number"),
        ({"x": None}, TypeError, "x must be a number"),
        ({"steps": 1.5}, ValueError, "`point`: steps must be a whole number, got 1.5"),
        ({"steps": float("inf")}, ValueError, "`point`: steps must be a whole number, got inf"),
        ({"steps": -1}, ValueError, "`point`: steps must not be negative, got -1"),
        ({"steps": lambda count: 1}, TypeError, "steps must be a whole number, got <function"),
        ({"mode": "c"}, ValueError, r"`point`: mode must be one of \('a', 'b'\), got 'c'"),
        ({"quick": 1}, ValueError, "quick must be one of"),
        ({"dtype": "int8"}, TypeError, "`point`: dtype must be a floating dtype, got int8"),
        ({"dtype": "float99"}, TypeError, "`point`: dtype must be a dtype or None, got 'float99'"),
    ],
)
def test_bad_arguments_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        point(**arguments)


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        point().x = 2.0


def test_it_survives_pickle():
    assert pickle.loads(pickle.dumps(gradtx.adamw(1e-3))) == gradtx.adamw(1e-3)


def test_leaves_may_be_replaced_by_anything():
    assert jax.tree.map(lambda x: -5, point()).x == -5
    assert jax.tree.map(lambda x: None, point()).x is None


def test_arrays_compare_by_content_and_have_no_hash():
    assert point(jnp.ones(2)) == point(jnp.ones(2)) != point(jnp.zeros(2))
    assert point(jnp.ones(2)) == point(np.ones(2, np.float32)) != point(jnp.ones(2, jnp.bfloat16))
    with pytest.raises(TypeError, match=r"`point` holds an array.*pass it to `jit` as an argument"):
        hash(point(jnp.ones(2)))


def test_a_bare_function_is_wrapped_and_a_pytree_with_call_is_kept():
    double = lambda count: 2 * count
    assert point(double) == point(double) and hash(point(double)) == hash(point(double))
    assert point(double) != point(lambda count: 2 * count)
    assert isinstance(point(double).x, Function) and point(double).x(3) == 6
    partial = jax.tree_util.Partial(jnp.multiply, 2.0)
    assert point(partial).x is partial


def test_a_scalar_array_becomes_a_number_so_that_others_keep_the_value_as_static():
    for one in (jnp.float32(0.5), np.float64(0.5), np.array(0.5), jnp.bfloat16(0.5)):
        assert type(point(one).x) is float and point(one) == point(0.5) and hash(point(one)) == hash(point(0.5))
    assert type(point(steps=jnp.int32(4)).steps) is int


def test_what_rounds_out_of_its_interval_is_refused():
    below = 2 - 1e-8
    with pytest.raises(ValueError, match=r"`point`: x must lie in \[0, 2\), got 1.99999999, which is 2.0 in float32"):
        point(below)
    with jax.enable_x64(True):
        assert point(below).x == below
    with pytest.raises(ValueError, match=r"x must lie in \[0, 2\), got 2.0"):
        point(jnp.array([1.0, 2.0]))  # entries that are known are checked


def test_arrays_on_different_devices_compare():
    one, other = (jax.device_put(jnp.ones(2), device) for device in jax.devices()[:2])
    assert point(one) == point(other)
    key, same = (jax.device_put(jax.random.split(jax.random.key(0)), device) for device in jax.devices()[:2])
    assert gradtx.add_noise(0.1, 0.5, key) == gradtx.add_noise(0.1, 0.5, same)


def test_a_subclass_that_is_not_decorated_is_a_value_when_it_is_first_built():
    class further(point):
        y: float = 3.0

    assert repr(further(1.5, y=2.0)).startswith("further(x=1.5") and jax.tree.leaves(further(1.5))[0] == 1.5
    assert further(1.5) == further(1.5) != point(1.5)

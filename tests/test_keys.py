"""Keys in every form are one key; a known one is a value."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import keys
from tests.public import PUBLIC

FORMS = {
    "int": 7,
    "NumPy's int": np.int64(7),
    "JAX's int": jnp.int32(7),
    "typed": jax.random.key(7),
    "raw": jax.random.PRNGKey(7),
    "raw in NumPy": np.asarray(jax.random.PRNGKey(7)),
}
P = jnp.ones(3)


@pytest.mark.parametrize("key", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_noise_and_a_value(key):
    tx = gradtx.add_noise(0.1, 0.5, key=key)
    assert hash(tx) == hash(gradtx.add_noise(0.1, 0.5, key=key)) and tx == gradtx.add_noise(0.1, 0.5, key=key)
    assert eval(repr(tx), PUBLIC | {"keys": gradtx.keys}) == tx
    noisy, _ = tx.update(P, tx.init(P))
    plain = gradtx.add_noise(0.1, 0.5, key=7)
    np.testing.assert_array_equal(noisy, plain.update(P, plain.init(P))[0])
    by_argument = jax.jit(lambda tx: tx.update(P, tx.init(P))[0])(tx)  # a key's words are leaves
    np.testing.assert_allclose(by_argument, noisy, rtol=1e-6)  # XLA fuses a product and a sum


def test_another_generator_stays_the_one_it_is():
    key = jax.random.key(3, impl="rbg")
    assert keys.typed(keys.checked("f", "key", key)) == key
    assert keys.checked("f", "key", key) != keys.checked("f", "key", jax.random.key(3))


def test_what_is_not_known_or_not_one_key_stays_as_it_is():
    several = jax.random.split(jax.random.key(0), 3)
    assert keys.checked("f", "key", several) is several
    jax.jit(lambda key: isinstance(keys.checked("f", "key", key), jax.Array) or pytest.fail("made known"))(several[0])


@pytest.mark.parametrize("bad", [True, 1.5, "a", None])
def test_what_is_no_key_is_refused(bad):
    with pytest.raises(TypeError, match=r"`f`: key must be an int or a key of `jax\.random`, got"):
        keys.checked("f", "key", bad)

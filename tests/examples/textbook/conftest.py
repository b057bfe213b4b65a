"""The quick form of a study spends its time on compiling: here, as with `--quick`, XLA optimizes little."""

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    """Without XLA's costly passes; for the tests of this folder alone."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)

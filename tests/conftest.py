"""Eight virtual devices, so that sharding is tested on every machine; the same examples on every run."""

import os

import jax
import jaxlib.version
import pytest
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 8)
# Most of the suite's time is compilation of programs that run once, which LLVM need not polish. What XLA itself does,
# and with it the bytes that tests count, stays. The older emitter of kernels, where there is one, needs half the time.
HASTY = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
GIVEN = os.environ.get("XLA_FLAGS", "")  # where it is asked to join loops, the older emitter crashes
if jaxlib.version.__version_info__ < (0, 11) and "multi_output_fusion" not in GIVEN:
    HASTY += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{GIVEN} {HASTY}".strip()  # read when the first array is made
settings.register_profile("gradtx", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("gradtx")


@pytest.fixture
def strict():
    """No implicit promotion of dtypes or ranks, as some projects run."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def op_by_op():
    """Loops and branches run in Python, operation by operation, where JAX would compile each anew at every call.

    What an operation was compiled to is kept, so on the trees of `tests/steps.py` a step costs milliseconds: a
    hundredth of compiling it.
    """
    with jax.disable_jit():
        yield


@pytest.fixture
def one_device(monkeypatch):
    """As on a machine with a single device, where nothing is sharded and some formulas take fewer passes."""
    monkeypatch.setattr(jax, "device_count", lambda: 1)

"""Eight virtual devices, so that sharding is tested on every machine; the same examples on every run."""

import jax
from hypothesis import settings

jax.config.update("jax_num_cpu_devices", 8)
settings.register_profile("gradtx", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("gradtx")

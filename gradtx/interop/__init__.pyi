from gradtx.interop.optax import as_optax as as_optax
from gradtx.interop.optax import from_optax_state as from_optax_state
from gradtx.interop.optax import to_optax_state as to_optax_state

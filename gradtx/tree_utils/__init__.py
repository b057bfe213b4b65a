"""Names that Optax keeps under `optax.tree_utils`, forwarded from `gradtx.tree`."""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)

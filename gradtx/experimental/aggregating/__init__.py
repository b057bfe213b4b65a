"""Names that Optax keeps under `optax.experimental.aggregating`, forwarded: here it is `gradtx.aggregating`."""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)

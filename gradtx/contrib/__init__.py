"""Names that Optax keeps under `optax.contrib`, forwarded. Here they are flat, `gradtx.muon`."""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)

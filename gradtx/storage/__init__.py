"""How an array of state is stored in fewer bytes than float32 has: codecs, for `compress_state`.

tx = gradtx.compress_state(gradtx.adamw(1e-3), {"mu": storage.int8("signed"), "nu": storage.bfloat16()})
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)

"""Groups of parameters, by the names, shapes and roles that Flax, Equinox and Haiku give them.

groups = labels.groups({"adam": role("embedding", "head", "norm", "bias"), "muon": role("matrix")})
print(labels.table(groups, params))
tx = gradtx.partition({"adam": gradtx.adamw(1e-3), "muon": gradtx.contrib.muon(0.02)}, groups)
"""

from gradtx import namespace

__getattr__, __dir__, __all__ = namespace.load(__name__, __file__)

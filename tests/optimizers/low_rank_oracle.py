"""GaLore, Fira and APOLLO in NumPy: Adam on a projection of each matrix's gradient, and what is made of it."""

import numpy as np

from tests.oracle import norm


def sides(shape, side):
    """Whether the rows are projected, and the columns."""
    m, n = shape
    longer = (m >= n, m < n)
    return {"longer": longer, "shorter": longer[::-1], "rows": (True, False), "columns": (False, True),
            "both": (True, True)}[side]  # fmt: skip


def singular_vectors(rank, gap=100):
    """P of rows and columns of a gradient, kept for `gap` updates."""
    kept = {}

    def vectors(path, g, t):
        if (t - 1) % gap == 0:
            u, _, vh = np.linalg.svd(g, full_matrices=False)
            kept[path] = u[:, :rank], vh[:rank].T.conj()
        return kept[path]

    return vectors


def low_rank(lr, combine, vectors, side, *, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, corrected=True, after=False):
    """u = combine(g, R, N, back, channel axis, path); others are Adam's.

    Args:
      corrected: whether bias is corrected.
      after: whether it is corrected at last, of all that is combined, with eps beside the uncorrected root.
    """

    def rule(params):
        moments = {}

        def step(grads, params, t):
            updates = {}
            mass1, mass2 = 1 - b1**t, 1 - b2**t
            for path, g in grads.items():
                is_matrix = g.ndim == 2
                by_rows, by_columns = sides(g.shape, side) if is_matrix else (False, False)
                p, q = vectors(path, g, t) if is_matrix else (None, None)
                r = p.T.conj() @ g if by_rows else g
                r = r @ q if by_columns else r
                mu, nu = moments.get(path, (0.0, 0.0))
                moments[path] = mu, nu = b1 * mu + (1 - b1) * r, b2 * nu + (1 - b2) * abs(r) ** 2
                last = np.sqrt(mass2) / mass1 if corrected and after else 1.0
                n = mu / (np.sqrt(nu) + eps)
                if corrected and not after:
                    n = mu / mass1 / (np.sqrt(nu / mass2) + eps)

                def back(x, p=p, q=q, by_rows=by_rows, by_columns=by_columns):
                    x = p @ x if by_rows else x
                    return x @ q.T.conj() if by_columns else x

                u = combine(g, r, n, back, 0 if by_rows else 1, path) if is_matrix else n
                updates[path] = -lr * (last * u + decay * params[path])
            return updates

        return step

    return rule


def ratio(n, r, axis, scale_type):
    if scale_type == "tensor":
        return norm(n) / (norm(r) + 1e-8)
    size = lambda x: np.sqrt(np.sum(np.abs(x) ** 2, axis, keepdims=True))
    return size(n) / (size(r) + 1e-8)


def limiter(growth):
    """Norms of each path that grow by a factor at most."""
    before = {}

    def limited(u, path):
        if growth is not None and path in before:
            u = u / (max(norm(u) / (before[path] + 1e-8), growth) / growth)
        before[path] = norm(u)
        return u

    return limited

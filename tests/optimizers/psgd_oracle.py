"""PSGD in NumPy float64, written from the formulas of arXiv:1512.04202 and arXiv:2402.11858, tensor by tensor."""

import numpy as np


def apply(q, x, side):
    """Q X_(k), of a matrix or a diagonal."""
    first = np.moveaxis(x, side, 0)
    first = q.reshape(-1, *[1] * (x.ndim - 1)) * first if q.ndim < 2 else np.tensordot(q, first, 1)
    return np.moveaxis(first, 0, side)


def product(factors, x, transposed=False):
    for side, q in enumerate(factors):
        x = apply(q.T if transposed else q, x, side)
    return x


def inverse_transposed(factors, x):
    for side, q in enumerate(factors):
        x = apply(1 / q if q.ndim < 2 else np.linalg.inv(q).T, x, side)
    return x


def gram(x, side, q):
    rows = np.moveaxis(x, side, 0).reshape(x.shape[side], -1)
    return np.sum(rows**2, axis=1) if q.ndim < 2 else rows @ rows.T


def bound(t, rounds):
    """From below, of a matrix's norm; of a diagonal's, the norm."""
    if t.ndim < 2:
        return np.max(t)
    v = t[np.argmax(np.linalg.norm(t, axis=1))]
    for _ in range(rounds):
        v = v @ t
        v = v / np.linalg.norm(v) @ t
    return np.linalg.norm(v)


def to_hermitian(q, order):
    """exp(a R) Q by its first terms, a being where the trace is largest, found by trying."""
    r = q.T - q
    if np.max(np.abs(r)) <= 1e-15 * np.max(np.abs(q)):  # rounding alone
        return q
    r = r / bound(r, 2)
    rq, rrq, rrrq = r @ q, r @ r @ q, r @ r @ r @ q
    if order == 2:
        roots, longest = np.roots([np.trace(rrq), np.trace(rq)]), 1 / 8
        terms = lambda a: rq + a / 2 * rrq
    else:
        roots, longest = np.roots([3 / 8 * np.trace(rrrq), np.trace(rrq), np.trace(rq)]), 5 / 8
        terms = lambda a: rq + a / 2 * rrq + a**2 / 8 * rrrq
    rising = [a.real for a in roots if abs(a.imag) < 1e-12 and 0 < a.real < longest]
    a = min(rising, default=longest)
    return q + a * terms(a)


def fit(form, state, h, v, rate, decay, rounds):
    """Factors and bounds after one gradient, with noise in it, and its probe."""
    factors, bounds = state
    direct = form in ("PRO4P", "QUAD4P")
    if form == "QEP":  # in the others it changes nothing
        sizes = [np.max(np.abs(q)) for q in factors]
        mean = np.prod(sizes) ** (1 / len(sizes))
        factors = [q * mean / size for q, size in zip(factors, sizes, strict=True)]
    a = product(factors, h)
    if form != "EQ" and not direct:
        a = product(factors, a, transposed=True)
    new, new_bounds = [], []
    for side, q in enumerate(factors):
        columns = h.size // h.shape[side]
        dot = np.multiply if q.ndim < 2 else np.matmul
        one = np.ones(len(q)) if q.ndim < 2 else np.eye(len(q))
        if form == "EQ":
            plus, minus = gram(a, side, q), gram(inverse_transposed(factors, v), side, q)
            size = bound(plus + minus, rounds)
        elif form == "QEP":
            plus, minus = gram(apply(q, a, side), side, q), columns * dot(q, q.T)
            size = bound(plus + minus, rounds)
        else:
            plus, minus = gram(a, side, q), columns * one
            size = bound(plus, rounds) + columns
        new_bounds.append(max(decay * bounds[side] + (1 - decay) * size, size))
        e = rate * (plus - minus) / new_bounds[-1]
        if form in ("QUAD", "QUAD4P"):
            e = e / 2 if form == "QUAD" else e
            p = dot(dot(one - e, q), one - e)
            new.append((p + p.T) / 2)
        elif form == "QEQ":
            new.append(q - dot(q, e))
        elif form == "EQ":
            new.append(q - dot(e if q.ndim < 2 else np.triu(e), q))
        else:
            p = q - dot(e, q)
            rotated = form in ("Q0.5EQ1.5", "PRO4P") and q.ndim == 2
            new.append(to_hermitian(p, 3 if direct else 2) if rotated else p)
    return new, new_bounds


def whiten(form, factors, x):
    return (
        product(factors, x) if form in ("PRO4P", "QUAD4P") else product(factors, product(factors, x), transposed=True)
    )


def start(shape, scale, diagonal):
    """Factors of the sides longer than 1, by whether they are diagonal; zero bounds."""
    of = lambda n, d: np.ones(n) if d else np.eye(n)
    factors = [scale ** (1 / len(shape)) * of(n, d) for n, d in zip(shape, diagonal, strict=True)]
    return factors, [0.0] * len(shape)


def shape_of(p, merge):
    """The lengths of a leaf's sides."""
    shape = (int(np.prod(p.shape[:-1])), p.shape[-1]) if merge and p.ndim > 2 else p.shape
    return tuple(n for n in shape if n != 1) or (1,)

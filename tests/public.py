"""What `import gradtx` offers: names and what they stand for, modules left out."""

import inspect

import gradtx


def names(package):
    found = {name: getattr(package, name) for name in dir(package)}
    return {name: x for name, x in found.items() if not inspect.ismodule(x)}


PUBLIC, TUNING, STORAGE = names(gradtx), names(gradtx.tuning), names(gradtx.storage)
CODE = {**PUBLIC, "labels": gradtx.labels, "storage": gradtx.storage}  # what a repr is read with

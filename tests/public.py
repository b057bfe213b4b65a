"""What `import gradtx` offers: names and what they stand for, modules left out."""

import inspect

import gradtx


def names(package):
    found = {name: getattr(package, name) for name in dir(package)}
    return {name: x for name, x in found.items() if not inspect.ismodule(x)}


PUBLIC, TUNING = names(gradtx), names(gradtx.tuning)

"""One idea each, without a learning rate: scale, clip, decay, momentum, normalize, noise.

May import `combine` and what lies below it.
"""

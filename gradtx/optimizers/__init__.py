"""One published method per file: its state, its core `scale_by_x`, and `x`, the chain with a learning rate.

May import `transforms` and below, and a sibling method.
"""

"""Several processes on one machine train a GPT; one is killed; the run goes on from its checkpoint on another mesh.

    make multihost
    python -m examples.multihost --kill 0 --steps 90

Each process has virtual CPU devices of its own and talks to the others as it would over a network: it is the program
`examples.train_lm_sharded`, started as on a cluster. local.py starts it; __main__.py is the play and its report.
"""

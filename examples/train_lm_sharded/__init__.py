"""Trains a GPT on the bytes of a text: on one device, on a mesh of them, or on many machines, by the same command.

    python -m examples.train_lm_sharded                                      # every device of this machine
    JAX_NUM_CPU_DEVICES=8 python -m examples.train_lm_sharded --mesh data=2,fsdp=2,tensor=2   # eight virtual ones
    python -m examples.train_lm_sharded --optimizer muon --learning-rate 0.02 --checkpoint runs/lm --save-every 50
    python -m examples.train_lm_sharded --help

Run a command with `--checkpoint` again, after a crash or on another mesh, and it goes on from the last checkpoint. On
many machines every process runs this same command: under Slurm, Open MPI 4 or on a TPU pod as it is, elsewhere with
`--coordinator HOST:PORT --processes N --process I`.

options.py is the command line, processes.py lets processes find each other, mesh.py says where parameters lie, model.py
is the network, text.py the data, optimizer.py finds a method by its name, train.py is the training step, checkpoint.py
saves it, report.py says what happened, run.py brings them together, and __main__.py is the program.
"""

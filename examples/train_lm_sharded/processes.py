"""How processes find each other, and how one ends that cannot go on without the others."""

import os
import sys
import traceback

import jax


def join(coordinator: str | None, processes: int | None, process: int | None, heartbeat: int) -> None:
    """Makes this process one of several, if it is; before anything else asks JAX for devices.

    Args:
      coordinator: `host:port` where process 0 listens; None: JAX asks Slurm, Open MPI 4 or the TPU pod, and where it
        finds none of them this process is alone.
      processes: how many there are; 1: this process is alone, and nothing is asked.
      process: which of them this is.
      heartbeat: seconds after which a process that is silent counts as dead, and all others end.
    """
    if processes == 1:
        return
    method = "deactivate" if coordinator else None
    try:
        jax.distributed.initialize(
            coordinator, processes, process, heartbeat_timeout_seconds=heartbeat, cluster_detection_method=method
        )
    except ValueError as error:
        if "coordinator_address should be defined" not in str(error):  # JAX recognized where it runs
            raise
        return
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        _keep_gloo_quiet()


def _keep_gloo_quiet() -> None:
    """gloo, by which JAX sends between CPUs, greets each of its peers on the standard output: it gets another one."""
    sys.stdout.flush()
    mine = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = os.fdopen(mine, "w")


def leave(code: int) -> int:
    """Ends this process at once if it is one of several, else returns the code.

    The usual way out waits for all processes, of which one may be dead.
    """
    if jax.process_count() == 1:
        return code
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def failed(error: Exception, where: str) -> None:
    """Says what went wrong: in two lines if the runtime lost a process, with the traceback if it was anything else."""
    text = str(error)
    if jax.process_count() > 1 and (isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in text):
        reason = max(text.strip().splitlines(), key=lambda line: "closed" in line or "Gloo" in line)
        print(
            f"error: process {jax.process_index()} ends {where}: another process is gone.\n  {reason}", file=sys.stderr
        )
    else:
        traceback.print_exception(error)

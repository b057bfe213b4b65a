"""The play, and its report: `python -m examples.multihost`."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np

from examples.multihost.local import Processes, checkpoints
from examples.train_lm_sharded.options import read_options
from examples.train_lm_sharded.run import Run

NETWORK = ["--layers", "2", "--width", "128", "--heads", "4", "--context", "64", "--batch", "16"]
HEARTBEAT = 10  # seconds
PATIENCE = 300  # seconds that a run may take
TOLERANCE = 1e-6  # relative: sums of float32 in another order
KINDS = "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays; returns 0 if the runs agree, else 1."""
    options = _options(arguments)
    try:
        return play(options)
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"a process did not end within {error.timeout:.0f} s: it was killed") from error


def play(options: argparse.Namespace) -> int:
    """The three runs, and their comparison."""
    folder = Path("runs") / f"multihost-{datetime.now():%Y-%m-%d-%H%M%S}"
    program = [*NETWORK, "--optimizer", options.optimizer, "--learning-rate", str(options.learning_rate)]
    program += [
        "--steps",
        str(options.steps),
        "--clip",
        "1",
        "--save-every",
        str(options.steps // 6),
        "--log-every",
        "1",
    ]

    def run(name: str, processes: int, devices: int, mesh: str, saves: Path) -> Processes:
        say(f"\n{name}: {processes} x {devices} devices, --mesh {mesh}")
        flags = ["--mesh", mesh, "--checkpoint", str(saves), "--report", str(folder / f"{name}.json")]
        return Processes(folder / name, processes, devices, [*program, *flags], HEARTBEAT)

    say(f"Logs and reports: {folder}")
    alone, shared = (folder.absolute() / "checkpoints" / name for name in ("alone", "together"))
    with run("alone", 1, 4, "data=2,fsdp=2", alone) as processes:
        finish(processes)
    with run("killed", 2, 2, "data=2,fsdp=2", shared) as processes:
        kill(processes, options.kill, shared, after=options.steps // 3)
    with run("resumed", 4, 2, "data=2,fsdp=2,tensor=2", shared) as processes:
        finish(processes)
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in ("alone", "resumed")}
    table(found)
    apart = {
        "losses": losses_apart(found["resumed"], found["alone"]),
        "parameters": parameters_apart(*(last_parameters(program, saves) for saves in (shared, alone))),
    }
    say("\nThe run that was killed and resumed against the one process, largest relative difference:")
    for name, difference in apart.items():
        say(f"  {name:12}{difference:.1e}  {'equal' if difference <= TOLERANCE else 'NOT equal'} to {TOLERANCE:g}")
    if not options.keep:
        shutil.rmtree(folder / "checkpoints")
    return 0 if max(apart.values()) <= TOLERANCE else 1


def finish(processes: Processes) -> None:
    """Waits for a run that should succeed, and shows how it went."""
    begun = time.monotonic()
    codes = processes.wait(PATIENCE)
    lines = processes.said(0).splitlines()
    if any(codes):
        raise SystemExit(f"exit codes {codes}; see {processes.logs[0].parent}\n" + "\n".join(lines[-20:]))
    steps = [line for line in lines if line.startswith("step")]
    for line in [*(line for line in lines if line.startswith("resumed")), steps[0], steps[-1]]:
        say(f"  {line}")
    say(f"  {time.monotonic() - begun:.0f} seconds, with the start of Python and the compilation")


def kill(processes: Processes, victim: int, saves: Path, after: int) -> None:
    """Kills one process once a checkpoint of `after` steps is whole, and waits for the others to stop."""
    last = time.monotonic() + PATIENCE
    while not any(step >= after for step in checkpoints(saves)):
        if time.monotonic() > last or not processes.running(victim):
            raise SystemExit(f"no checkpoint of {after} steps; see {processes.logs[0].parent}")
        time.sleep(0.02)
    processes.kill(victim)
    killed = time.monotonic()
    say(f"  process {victim}, pid {processes.pid(victim)}, killed while it trains; checkpoint {after} is written")
    codes = processes.wait(3 * HEARTBEAT)
    seconds = time.monotonic() - killed
    if codes[victim] != -signal.SIGKILL:
        raise SystemExit("the run was over before the kill: give it more --steps")
    for i, code in enumerate(codes):
        if i != victim:
            say(f"  process {i} stopped {seconds:.1f} s later (heartbeat: {HEARTBEAT} s), exit code {code}:")
            for line in reason(processes.said(i)):
                for part in textwrap.wrap(line, 110)[:3]:
                    say(f"    | {part}")
    say(f"  whole checkpoints: {', '.join(map(str, checkpoints(saves)))}")


def reason(log: str) -> list[str]:
    """The lines by which a process says why it stopped: the program's own, or the runtime's."""
    lines = log.splitlines()
    for first, line in enumerate(lines):
        if line.startswith("error:"):
            return lines[first : first + 2]
    return [line.partition("] ")[2] for line in lines if "Terminating process" in line] or lines[-1:]


def table(found: dict[str, Any]) -> None:
    """Prints what each run's compiled step sends, and what its devices hold."""
    kinds = [kind for kind in KINDS if any(kind in run["collectives"] for run in found.values())]
    rows = [["run", "processes", "mesh", *kinds, "parameters", "state", "tokens/s"]]
    for name, run in found.items():
        mesh = " x ".join(f"{axis} {size}" for axis, size in run["mesh"].items() if size > 1)
        held = [f"{run[f'{what} bytes per device'] / 1024:,.0f} KiB" for what in ("parameter", "state")]
        counts = [str(run["collectives"].get(kind, 0)) for kind in kinds]
        rows.append([name, str(run["processes"]), mesh, *counts, *held, f"{run['tokens per second']:,.0f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    say("\nCollectives in the compiled step, and bytes on each device:")
    for row in rows:
        left, right = list(zip(row, widths, strict=True))[:3], list(zip(row, widths, strict=True))[3:]
        say("  " + "  ".join([*(f"{x:{w}}" for x, w in left), *(f"{x:>{w}}" for x, w in right)]))


def losses_apart(run: dict[str, Any], reference: dict[str, Any]) -> float:
    """The largest relative difference of the losses of the steps that the run made."""
    mine, its = np.array(run["losses"]), np.array(reference["losses"][run["first step"] :])
    return float(np.max(np.abs(mine / its - 1)))


def parameters_apart(params: Any, reference: Any) -> float:
    """The largest of |a - b| / |b| over the parameters, in norms of whole arrays."""
    apart = lambda a, b: float(np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(np.asarray(b)))
    return max(jax.tree.leaves(jax.tree.map(apart, params, reference)))


def last_parameters(arguments: Sequence[str], saves: Path) -> Any:
    """The parameters in the last checkpoint, read by this process."""
    run = Run(read_options([*arguments, "--checkpoint", str(saves), "--mesh", "data=-1", "--processes", "1"]))
    run.prepare()
    return run.trained.params


def say(text: str) -> None:
    """Prints at once."""
    print(text, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.multihost", description=__doc__)
    parser.add_argument("--optimizer", default="adamw", metavar="NAME", help="default: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=1e-3, metavar="X", help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=60, metavar="N", help="default: %(default)s")
    parser.add_argument("--kill", type=int, choices=(0, 1), default=1, help="which process (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

"""The program: `python -m examples.train_lm_sharded --help`."""

import sys
from collections.abc import Sequence

from examples.train_lm_sharded import processes
from examples.train_lm_sharded.options import OptionError, read_options
from examples.train_lm_sharded.run import Run

WRONG_OPTIONS, INTERRUPTED = 2, 130  # exit codes, as programs and shells have them


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains; returns the exit code, or ends the process if it fails and is one of several."""
    options = read_options(arguments)
    processes.join(options.coordinator, options.processes, options.process, options.heartbeat)
    run = Run(options)
    try:
        run.prepare()
        return run.train()
    except OptionError as error:
        print(f"error: {error}", file=sys.stderr)
        return processes.leave(WRONG_OPTIONS)
    except KeyboardInterrupt:
        print(f"interrupted {run.where()}", file=sys.stderr)
        return processes.leave(INTERRUPTED)
    except Exception as error:
        processes.failed(error, run.where())
        return processes.leave(1)


if __name__ == "__main__":
    sys.exit(main())

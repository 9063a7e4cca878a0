"""The command line: one sub-command per stage, each usable without Snakemake."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# sums in another order are other bytes: whatever does not take its threads from the settings takes one. Read when numpy starts
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ[f"{_library}_NUM_THREADS"] = "1"

from gyri.cli.options import build_parser  # noqa: E402
from gyri.environment import image_name  # noqa: E402
from gyri.errors import GyriError, Interrupted  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command.

    Args:
        arguments: the words after `python -m gyri`; those of the process by default.

    Returns:
        The exit status: 0 well, 1 a problem that is explained, 2 wrong usage, 75 stopped on request with the state saved.
    """
    options = build_parser().parse_args(arguments)
    options.loaded = frozenset(sys.modules)
    try:
        options.action(options)
    except GyriError as error:
        print(error, file=sys.stderr, flush=True)
        if isinstance(error, Interrupted) and image_name() is not None:
            # Slurm's signal ended the process that serves the image's files, too: code that was never read before is gone, and the
            # end of an interpreter is such code. The state is saved
            os._exit(error.exit_code)
        return error.exit_code
    except BrokenPipeError:
        # the reader of our output went away (`gyri plan | head`); say nothing more, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("Stopped by the keyboard; finished files are whole.", file=sys.stderr)
        return 130
    return 0

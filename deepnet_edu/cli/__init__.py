"""The command line: deepnet-edu doctor | lab | explore | progress | run | scheduler | workers | report | build |
probe | plan | bench | models | train | data."""

import sys

try:
    from deepnet_edu.cli import batch, course, data, depth, planning, report, training  # each brings its commands along
    from deepnet_edu.cli.app import app, main
except KeyboardInterrupt:  # Ctrl-C before there is a command to stop
    print("Stopped.", file=sys.stderr)
    sys.exit(130)

__all__ = ["app", "batch", "course", "data", "depth", "main", "planning", "report", "training"]

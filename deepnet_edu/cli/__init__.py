"""The command line: deepnet-edu doctor | lab | explore | progress | run | scheduler | workers | report | build |
probe | plan | bench | models | train."""

from deepnet_edu.cli import batch, course, depth, report, training  # each brings its commands along
from deepnet_edu.cli.app import app, main

__all__ = ["app", "batch", "course", "depth", "main", "report", "training"]

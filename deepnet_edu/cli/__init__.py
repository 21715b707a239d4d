"""The command line: deepnet-edu doctor | lab | explore | progress | run | build | probe | plan | bench | models,
and deepnet-edu train | report."""

from deepnet_edu.cli import course, depth, report, training  # each brings its commands along
from deepnet_edu.cli.app import app, main

__all__ = ["app", "course", "depth", "main", "report", "training"]

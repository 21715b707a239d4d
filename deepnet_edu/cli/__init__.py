"""The command line: deepnet-edu doctor | lab | explore | progress | run | build | probe | plan | bench | models,
and deepnet-edu train."""

from deepnet_edu.cli import course, depth, training  # each brings its commands along
from deepnet_edu.cli.app import app, main

__all__ = ["app", "course", "depth", "main", "training"]

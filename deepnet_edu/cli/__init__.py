"""The command line. Each file of this folder brings its commands along; ``deepnet-edu --help`` lists them."""

import pkgutil
import sys
from importlib import import_module

try:
    from deepnet_edu.cli.app import app, main

    for _module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{_module.name}")
except KeyboardInterrupt:  # Ctrl-C before there is a command to stop
    print("Stopped.", file=sys.stderr)
    sys.exit(130)

__all__ = ["app", "main"]

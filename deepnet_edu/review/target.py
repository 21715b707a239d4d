"""From what a user names, file.py:build_model or a Hugging Face config, to the model."""

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from deepnet_edu.messages import UserError, shown, unknown
from deepnet_edu.review.checklist import Review, UnknownDepth, Unseen, review
from deepnet_edu.review.hugging_face import model_of_config
from deepnet_edu.review.inputs import inputs_for
from deepnet_edu.review.rows import Row
from deepnet_edu.review.views import Inputs, run_on

PACKAGE = str(Path(__file__).parents[1])
#: Name of the module that a file becomes.
FILE = "__reviewed__"
EXPECTED = (
    "expected file.py:NAME, package.module:NAME, or a Hugging Face config.json or the folder that holds one; nothing "
    "is downloaded"
)


@dataclass(frozen=True)
class Place:
    """Where the reviewed model is written: a file, and a line of it."""

    file: Path
    line: int = 1


@dataclass(frozen=True)
class Reviewed:
    """A target's checklist, its name, and where it is written."""

    target: str
    review: Review
    place: Place | None


def review_target(target: str, depth: tuple[int, int] | None = None) -> Reviewed:
    """Build the model that a user names, from seed 0, and review it.

    A file or module is imported, which executes its code, as running it would. What that prints goes to standard error.

    Args:
        target: ``file.py:NAME`` or ``package.module:NAME`` with the name of a function or class that needs no
            arguments, or of a model; or the path of a Hugging Face config.json, or of its folder. A function may return
            the model alone, or a pair of it and the batch to run it on.
        depth: layers of encoder and decoder, as :func:`review` takes them.

    Raises:
        UserError: there is no such file or name, it needs arguments, it fails, or it gives no model.
    """
    torch.manual_seed(0)
    with redirect_stdout(sys.stderr), _importable(os.path.dirname(target.rpartition(":")[0])):
        model, batch, place = _build(target)
        try:
            batch = _batch_for(model) if batch is None else batch
            run = run_on(model, batch)
        except (TypeError, ValueError) as error:
            raise UserError(str(error)) from None
        try:
            found = review(model, run=run, depth=depth)
        except Unseen as error:
            row = Row("where the residual is", "UNKNOWN", "no sum of a stream and a branch", "one or more", str(error))
            found = Review((row,))
        except UnknownDepth:
            how = "Add --depth N, or --depth N,M of encoder and decoder."
            raise UserError(f"How many layers does {target} have? {how}") from None
        except Exception as error:
            raise _failed(f"{target} does not run", error) from None
    return Reviewed(target, found, place)


def _batch_for(model: nn.Module) -> Inputs | None:
    """Inputs that a model accepts.

    Raises:
        ValueError: it accepts none; the message says how to give them.
    """
    try:
        return inputs_for(model)
    except ValueError as error:
        raise ValueError(
            f"{error}: let a function return (model, batch), where batch is the tensor, the tuple of tensors or the "
            "dict of tensors by keyword that the model is called with."
        ) from None


def _build(target: str) -> tuple[nn.Module, Any, Place | None]:
    """The model, what to run it on or None, and where it is written."""
    where, colon, name = target.rpartition(":")
    if os.path.isdir(target) or (target.endswith(".json") and os.path.exists(target)):
        model, file = model_of_config(Path(target))
        return model, None, Place(file)
    if not colon or os.path.exists(target):
        if target.endswith(".py"):
            raise UserError(f"{target} has no name after it: add that of a function or model, {target}:build_model.")
        raise UserError(f"{shown(target)} names nothing to review: {EXPECTED}.")
    module = _module(where)
    given = _named(module, name, where)
    made = _made(given, target)
    model, batch = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(model, nn.Module):
        raise UserError(
            f"{target} gives {_kind(made)}: expected a torch.nn.Module, or a pair of one and the batch to run it on."
        )
    return getattr(model, "_orig_mod", model), batch, _place(given, module)  # what torch.compile has wrapped


def _module(where: str) -> ModuleType:
    """A file or an importable module, executed."""
    path = Path(where)
    if where.endswith(".py"):
        if not path.is_file():
            raise UserError(f"{where} is not here, or is not a file: {EXPECTED}.")
        spec = importlib.util.spec_from_file_location(FILE, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[FILE] = importlib.util.module_from_spec(spec)  # dataclasses look for it there
        load: Callable[[], Any] = partial(spec.loader.exec_module, module)
        _run(load, f"{where} does not run")
        return module
    if not all(part.isidentifier() for part in where.split(".")):
        raise UserError(f"{shown(where)} is neither a file of Python nor a module: {EXPECTED}.")
    try:
        known = importlib.util.find_spec(where) is not None
    except (ImportError, ValueError):  # a package above it is not there
        known = False
    if not known:
        raise UserError(f"There is no module {shown(where)}: {EXPECTED}.")
    return _run(lambda: importlib.import_module(where), f"{where} does not run")


def _named(module: ModuleType, name: str, where: str) -> Any:
    """What a file or module has under a name, which may have dots."""
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [known for known, value in vars(found).items() if known[0] != "_" and _usable(value)]
            if not names:
                raise UserError(f"{where} has no {shown(name)}, nor any other function, class or model.")
            raise UserError(unknown(f"name in {where}", part, names))
        found = getattr(found, part)
    return found


def _usable(value: Any) -> bool:
    return isinstance(value, nn.Module) or (callable(value) and not isinstance(value, ModuleType))


def _made(given: Any, target: str) -> Any:
    """A model as it is, or what a function or class gives without arguments."""
    if isinstance(given, nn.Module) or not callable(given):
        return given
    try:
        known = inspect.signature(given).parameters.values()
    except (TypeError, ValueError):  # of code in C
        known = ()  # type: ignore[assignment]
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [one.name for one in known if one.default is inspect.Parameter.empty and one.kind not in variadic]
    if needed:
        raise UserError(
            f"{target} needs arguments ({', '.join(needed)}): write a function without any, such as "
            f"def build_model(): return {target.rpartition(':')[2]}(…), and name that."
        )
    return _run(given, f"{target} does not run")


def _run(function: Callable[[], Any], what: str) -> Any:
    """The user's own code; whatever it raises is one sentence."""
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise _failed(what, error) from None


def _failed(what: str, error: BaseException) -> UserError:
    """The sentence for code that raised, with the last line of the user's own."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((PACKAGE, "<")) and "site-packages" not in frame.filename
    ]
    at = f" at {os.path.relpath(own[-1].filename)}, line {own[-1].lineno}" if own else ""
    said = " ".join(str(error).split())[:400] or "no message"
    hint = ". Name it as package.module:NAME" if "attempted relative import" in said else ""
    return UserError(f"{what}: {type(error).__name__}{at}: {said}{hint}.")


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"an object of type {type(value).__name__}"


def _place(given: Any, module: ModuleType) -> Place | None:
    """Where a function or class is written; of a model, its file."""
    try:
        if not isinstance(given, nn.Module):
            file = inspect.getsourcefile(inspect.unwrap(given))
            if file is not None:
                return Place(Path(file), inspect.getsourcelines(inspect.unwrap(given))[1] or 1)
    except (OSError, TypeError):
        pass
    return Place(Path(module.__file__)) if module.__file__ else None


@contextmanager
def _importable(folder: str) -> Iterator[None]:
    """A file's folder, or the working folder, is searched for modules, as ``python file.py`` does."""
    place = os.path.abspath(folder)
    sys.path.insert(0, place)
    try:
        yield
    finally:
        sys.path.remove(place)

"""A run as three tables, from a preset or a TOML file, changed by ``key=value``, checked before anything starts."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from deepnet_edu.experiment.data import DataConfig
from deepnet_edu.experiment.presets import PRESETS
from deepnet_edu.fields import without_former
from deepnet_edu.files import parse_toml, read_text, write_atomic
from deepnet_edu.messages import UserError, shown, unknown
from deepnet_edu.model import config
from deepnet_edu.model.config import NO_RESIDUAL, ModelConfig
from deepnet_edu.training import config as training
from deepnet_edu.training.checkpoint import MAY_CHANGE
from deepnet_edu.training.config import TrainConfig

TABLES: dict[str, type[Any]] = {"model": ModelConfig, "train": TrainConfig, "data": DataConfig}
#: Options of earlier versions, by table.
FORMER: dict[str, dict[str, Any]] = {"model": config.FORMER, "train": training.FORMER}
#: What a run's folder keeps of it.
FILE = "run.toml"
FREE = tuple(f"train.{name}" for name in MAY_CHANGE)


@dataclass(frozen=True)
class Experiment:
    """What is trained, how, and on what. That the three fit together is checked on creation.

    Attributes:
        model: the shape.
        train: how to train.
        data: the batches.

    Raises:
        ValueError: one sentence that says what contradicts what.
    """

    model: ModelConfig
    train: TrainConfig
    data: DataConfig

    def __post_init__(self) -> None:
        task = self.model.task
        if task not in self.data.tasks:
            made = " or ".join(map(repr, self.data.tasks))
            raise ValueError(
                f"data.source={self.data.source!r} makes batches for task={made}, and model.task={task!r}: "
                "change one of them."
            )
        if self.train.parameters == "stack" and self.model.residual == NO_RESIDUAL:
            raise ValueError("train.parameters='stack' and model.residual='none': there is no stack to train.")
        if self.data.length > self.model.max_length:
            raise ValueError(
                f"data.length={self.data.length} is more than model.max_length={self.model.max_length}: "
                f"use --set max_length={self.data.length}, or shorter sequences."
            )
        least = self.data.least_vocab_size(task)
        for name in ("vocab_size", "source_vocab_size"):
            size = getattr(self.model, name)
            if size < least and (size or name == "vocab_size"):
                besides = ", the mask token among them" if task == "mlm" else ""
                raise ValueError(f"model.{name}={size}: {self.data.title} has {least} tokens or more{besides}.")

    def to_toml(self) -> str:
        """The three tables, every field written out, as :func:`find_run` reads them."""
        return "\n".join(
            f"[{table}]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in content.items())
            for table, content in self.to_dict().items()
        )

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """The same as plain values; a field that is None is left out, as TOML has no word for it."""
        return {
            table: {key: value for key, value in content.items() if value is not None}
            for table, content in asdict(self).items()
        }


def find_run(given: str, overrides: Sequence[str] = ()) -> Experiment:
    """The run that ``given`` names, with some of its values changed.

    Args:
        given: a name in ``PRESETS``, or a TOML file with the tables ``[model]``, ``[train]`` and ``[data]``.
        overrides: ``"train.steps=50"``, or ``"steps=50"`` where only one table has such a key. Values are written as
            in TOML, text with or without its quotes.

    Raises:
        UserError: there is no such preset, file, table or key, a value is none of its field, or values contradict
            each other.
    """
    if given.endswith(".toml"):
        tables = _read(Path(given))
    elif given in PRESETS:
        preset = PRESETS[given]
        tables = {table: dict(getattr(preset, table)) for table in TABLES}
    else:
        raise UserError(f"{unknown('preset', given, PRESETS)} A run of your own: a file, for example my_run.toml.")
    for override in overrides:
        table, key, value = _override(override)
        tables[table][key] = value
    try:
        return Experiment(**{table: _make(table, tables[table]) for table in TABLES})
    except ValueError as error:
        raise UserError(str(error)) from None


def keep(run: Experiment, folder: Path) -> bool:
    """Write the run into its folder, from which ``find_run`` and ``check_same`` read it. A file that says the same
    already stays as it is, whatever else is written in it.

    Returns:
        Whether it was written.

    Raises:
        UserError: the file says something else, and was edited by hand.
        OSError: the folder cannot be written.
    """
    path = folder / FILE
    if path.exists():
        if (there := find_run(str(path))) == run:
            return False
        if not is_ours(folder):
            changed = ", ".join(_changed(there, run))
            raise UserError(
                f"{path} was written or edited by hand, and is not replaced: change {changed} in it, and resume "
                "without --set; or begin another run with --out."
            )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, run.to_toml())
    return True


def is_ours(folder: Path) -> bool:
    """Whether the file in a run's folder is as :func:`keep` writes it, or an earlier version did, without options that
    came later: so that replacing it loses nothing."""
    former = {f"{key} = {_toml(value)}" for options in FORMER.values() for key, value in options.items()}
    try:
        lines = [line for line in read_text(folder / FILE).splitlines() if line not in former]
        return [line for line in find_run(str(folder / FILE)).to_toml().splitlines() if line in lines] == lines
    except (UserError, OSError, ValueError):
        return False


def _changed(before: Experiment, now: Experiment) -> list[str]:
    """The keys whose values differ."""
    a, b = before.to_dict(), now.to_dict()
    return [
        f"{table}.{key}" for table in TABLES for key in a[table] | b[table] if a[table].get(key) != b[table].get(key)
    ]


def check_same(run: Experiment, folder: Path) -> None:
    """See that ``run`` may be resumed in ``folder``: it is the run that was begun there, but for what is ``FREE``.

    Raises:
        UserError: it is another; the sentence names the first key that differs.
    """
    began, goes_on = find_run(str(folder / FILE)).to_dict(), run.to_dict()
    free = [name for name in FREE if name != "train.steps" or run.train.schedule != "cosine"]
    for table in TABLES:
        for key in sorted({*began[table], *goes_on[table]}):
            before, now = began[table].get(key), goes_on[table].get(key)
            if before != now and f"{table}.{key}" not in free:
                raise UserError(
                    f"{folder} was begun with {table}.{key}={before!r}, and now it is {now!r}: "
                    f"resume with what is in {folder / FILE}, or begin again with another --out."
                )


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of a TOML file; what they hold is checked later."""
    try:
        content = parse_toml(read_text(path))
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else f"it is {error}"
        if str(error) in ("nested too deeply", "a number has thousands of digits"):
            why = str(error)
        raise UserError(
            f"{_name(path)} cannot be read: {why}. A preset is named without .toml: {', '.join(PRESETS)}."
        ) from None
    for name, table in content.items():
        if name not in TABLES:
            raise UserError(f"{path}: {unknown('table', name, TABLES)}")
        if not isinstance(table, dict):
            raise UserError(
                f"{path}: {name}={shown(table)}: expected a table, [{name}] and below it one key = value a line."
            )
    return {table: content.get(table, {}) for table in TABLES}


def _override(text: str) -> tuple[str, str, Any]:
    """Table, key and value of ``key=value``."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name:
        raise UserError(f"--set {shown(text)}: expected key=value, for example --set steps=50.")
    full = {f"{table}.{field.name}": (table, field.name) for table, cls in TABLES.items() for field in fields(cls)}
    # No two tables have a key in common (a test holds that), so its name alone is enough.
    known = full | {key: (table, key) for table, key in full.values()}
    if name not in known:
        name = name[:60]
        raise UserError(_short(unknown("key", name, full if "." in name else sorted(known.keys() - full.keys()))))
    table, key = known[name]
    if _is_text(_kind(table, key)):
        return table, key, value.strip("\"'")
    try:
        read = parse_toml(f"value = {value}")
    except ValueError as error:
        if str(error).startswith("not TOML"):
            return table, key, value.strip("\"'")
        raise UserError(f"--set {name}: its value is not one of a run ({error}).") from None
    # Where a line break makes more of it, it is text.
    return table, key, read["value"] if list(read) == ["value"] else value.strip("\"'")


def _name(path: Path) -> str:
    """A path for a sentence, however long it is."""
    return text if len(text := str(path)) <= 200 else text[:200] + "…"


def _short(sentence: str) -> str:
    """The message without the list of all keys, which is too long to read."""
    before, found, _ = sentence.partition(": expected one of")
    return f"{before}: the keys are those of ModelConfig, TrainConfig and DataConfig." if found else sentence


def _make(table: str, content: Mapping[str, Any]) -> Any:
    """The table's dataclass.

    Raises:
        ValueError: a key is unknown or missing, or a value is none of its field.
    """
    cls = TABLES[table]
    known = [field.name for field in fields(cls)]
    content = without_former(content, FORMER.get(table, {}))
    for key in content:
        if key not in known:
            raise ValueError(f"[{table}]: {unknown('key', key, known)}")
    missing = [
        field.name
        for field in fields(cls)
        if field.default is MISSING and field.default_factory is MISSING and field.name not in content
    ]
    if missing:
        raise ValueError(f"[{table}] has no {missing[0]}: add {missing[0]} = … to it, or --set {missing[0]}=….")
    return cls(**{key: _typed(f"{table}.{key}", value, _kind(table, key)) for key, value in content.items()})


def _kind(table: str, key: str) -> Any:
    return get_type_hints(TABLES[table])[key]


def _is_text(kind: Any) -> bool:
    return kind is str or (get_origin(kind) is Literal and all(isinstance(value, str) for value in get_args(kind)))


def _typed(name: str, value: Any, kind: Any) -> Any:
    """The value as its field has it: whole numbers where numbers are wanted, lists as tuples.

    Raises:
        ValueError: it is of another kind.
    """
    if get_origin(kind) in (Union, UnionType):
        first, *others = get_args(kind)
        for one in others:
            with suppress(ValueError):
                return _typed(name, value, one)
        kind = first
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        with suppress(OverflowError):  # the range of a float is not that of a whole number
            return float(value)
    if get_origin(kind) is tuple and isinstance(value, list | tuple):
        inside = get_args(kind)[0]
        return tuple(_typed(name, item, inside) for item in value)
    if _is_text(kind) and isinstance(value, str):
        return value
    if kind in (bool, int, float) and type(value) is kind:
        return value
    expected = {bool: "true or false", int: "a whole number", float: "a number"}.get(
        kind, "text" if _is_text(kind) else "a list, for example [0.9, 0.98]"
    )
    raise ValueError(f"{name}={shown(value)}: expected {expected}.")


def _toml(value: Any) -> str:
    """Numbers, text, true and false, and lists of them are written in the same way in JSON and TOML."""
    return json.dumps(value, ensure_ascii=False)

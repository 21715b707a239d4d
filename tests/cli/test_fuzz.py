"""Malformed command lines: each ends in one short sentence, or in what it means; none in a traceback, or never.

Every command, with each of its options and arguments as the application declares them, meets values that are wrong in
every way we know. DEEPNET_EDU_FUZZ=5 tries five times as many, by other seeds.
"""

import errno
import inspect
import os
import platform
import random
import resource
import signal
import socket
import sys
import tempfile
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot  # noqa: F401  it looks for fonts once
import pytest
import typer.main
from typer.testing import CliRunner

import deepnet_edu.planning.ranks
import deepnet_edu.planning.time  # noqa: F401  before a test replaces what they import
from deepnet_edu.cli import app
from deepnet_edu.course import places
from deepnet_edu.messages import MOST_SHOWN, UserError

if sys.platform == "win32":
    pytest.skip("uses limits that Windows has not", allow_module_level=True)

ROUNDS = int(os.environ.get("DEEPNET_EDU_FUZZ", "1"))
#: Values that each option and argument gets in a round, and command lines of several options for each command.
VALUES, LINES = 8, 10
SECONDS, MEMORY = 20, 6 * 2**30
COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
#: What a command that needs an argument gets when its options are tried; without one, run would plan all lessons.
ARGUMENTS = {
    "grade": "batch", "plan": "small_1000", "report": "batch", "review": "model.py:build", "run": "00",
    "train": "laptop-1000", "workers": "tcp://127.0.0.1:8786",
}  # fmt: skip


class Begun(BaseException):
    """The command has accepted what it was given: it begins its work, builds a model or starts a process."""


class Outside(BaseException):
    """The command writes where it was not told to."""


class Endless(BaseException):
    """The command does not end."""


#: The folder in which a command may write, and what was typed; elsewhere nothing may be written but where that says so.
watching: list[Path] = []
typed: list[str] = []


def watch(event: str, details: tuple[Any, ...]) -> None:
    """An audit hook, which Python calls before it opens, renames, starts … anything. It cannot be removed."""
    if not watching:
        return
    if event == "subprocess.Popen":
        if details[0] == sys.executable:
            raise Begun(event, *details)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(details[0]))  # nvidia-smi, git, …
    written = {
        "os.mkdir": details[:1],
        "os.remove": details[:1],
        "os.rmdir": details[:1],
        "os.rename": details[:2],
        "os.link": details[:2],
        "os.symlink": details[1:2],
        "os.truncate": details[:1],
    }.get(event, ())
    if event == "open" and isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        written = details[:1]
    for path in written:
        if isinstance(path, str | bytes | os.PathLike) and os.fsdecode(path) != os.devnull:
            real = Path(os.fsdecode(path)).absolute()
            if not real.resolve().is_relative_to(watching[0]):
                named = [text.rstrip("x/") if text.startswith("/dev/") else text for text in typed if text[:1] == "/"]
                if any(str(real).startswith(text) or str(real) == os.path.dirname(text) for text in named):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(real))
                raise Outside(f"{event} {real}")


sys.addaudithook(watch)
platform.processor()  # asks another program, and remembers


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with odd things in it, limits of time and memory, and a watch over what is written."""
    here = tmp_path / "a" / "b" / "c"
    (here / "batch").mkdir(parents=True)
    (here / "folder.json").mkdir()
    (here / "file.json").write_bytes(random.Random(0).randbytes(1000))
    for name in ("deep.json", "deep.ipynb"):
        (here / name).write_text("[" * 100_000)
    (here / "deep.toml").write_text("[train]\nsteps = " + "[" * 100_000)
    (here / "huge.json").write_text('{"architecture": "decoder", "task": "lm", "decoder_layers": ' + "9" * 5000 + "}")
    (here / "huge.toml").write_text("[train]\nsteps = " + "9" * 5000)
    (here / "model.py").write_text("from torch import nn\ndef build():\n return nn.TransformerEncoderLayer(8, 2, 8)")
    os.mkfifo(here / "pipe")
    (here / "pipe.json").symlink_to("pipe")
    (here / "pipe.toml").symlink_to("pipe")
    (here / "loop.json").symlink_to("loop.json")
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(here))
    monkeypatch.setattr(places, "WORKSPACE", here / "workspace")
    monkeypatch.setattr(places, "RUNS", here / "runs")
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ask = socket.getaddrinfo  # no resolver is asked for a name
    monkeypatch.setattr(socket, "getaddrinfo", lambda *a, **how: ask(*a, **{**how, "flags": socket.AI_NUMERICHOST}))

    def begins(*_: object, **__: object) -> None:
        raise Begun("its work")

    for name in (
        "deepnet_edu.model.build.build_empty",
        "deepnet_edu.review.target.review",
        "deepnet_edu.batch.run.fill_folder",
        "deepnet_edu.course.build.executed",
        "deepnet_edu.course.export.platforms.exercises_of",
        "deepnet_edu.course.export.withheld._students",
        "deepnet_edu.course.grading.sandbox.Sandbox._start",
        "deepnet_edu.course.lab.LabApp.launch_instance",
        "deepnet_edu.explorers.app.Explorers.launch_instance",
        "deepnet_edu.explorers.pages.page",
        "distributed.cli.dask_scheduler.main",
    ):
        monkeypatch.setattr(name, begins)
    monkeypatch.setattr("deepnet_edu.serving.end_by_signals", lambda: None)
    before = signal.signal(signal.SIGALRM, lambda *_: endless())
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    watching.append(tmp_path.resolve())
    with patch.dict(os.environ):  # lab and explore say there where progress is kept
        yield here
    watching.clear()
    resource.setrlimit(resource.RLIMIT_AS, limits)
    signal.signal(signal.SIGALRM, before)


def endless() -> None:
    raise Endless


def malformed(draw: random.Random) -> list[str]:
    """Values that are wrong for nearly everything."""
    return [
        "", " ", "-1", "0", "1.5", "1e309", "nan", "-inf", "٣", "1_0", "0x10", "1" + "0" * 40, "9" * 5000, "٣" * 300,
        "".join(draw.choices("abcdefgh /=,", k=5000)), "x" * 5000, "[" * 10_000, "a=" + "[" * 10_000, "a=" + "9" * 5000,
        "a\nb\x1b[31m", "\x01\x02", "🙂" * 80, "../..", "/dev/null", "/dev/full", "/dev/null/x", "pipe", "pipe.json",
        "pipe.toml", "folder.json", "file.json", "deep.json", "deep.ipynb", "deep.toml", "huge.json", "huge.toml",
        "loop.json", "n" * 300, "n" * 300 + ".ipynb", "n" * 300 + ".json", "n" * 300 + ".toml", "=", "=1", "a=", ",",
        "data=2,data=2", "data=" + "9" * 5000, "data=٣", "steps=" + "[" * 10_000, "steps=" + "9" * 5000,
        "learning_rate=1" + "0" * 400, "DEPTH=" + "9" * 5000, "--", "-", "-x", "--x", "*", "~", "$HOME", "None",
        "\udcff",
    ]  # fmt: skip


def kind_of(command: str, parameter: Any) -> str:
    """flag, number, path or text."""
    callback = next(one.callback for one in app.registered_commands if one.callback.__name__ == command)  # type: ignore[union-attr]
    wanted = typing.get_type_hints(callback)[parameter.name]
    kinds = {wanted, *typing.get_args(wanted)}
    return "flag" if bool in kinds else "number" if kinds & {int, float} else "path" if Path in kinds else "text"


def option_of(parameter: Any) -> str | None:
    """``--layers``; None for an argument."""
    return None if parameter.param_type_name == "argument" else max(parameter.opts, key=len)


def parameters_of(command: str) -> list[Any]:
    known = inspect.signature(COMMANDS[command].callback).parameters
    return [one for one in COMMANDS[command].params if one.name in known]


def call(*line: str) -> tuple[str, str]:
    """How a command line ends, ``done``, ``begun`` or ``refused``, and its sentence."""
    typed[:] = line
    signal.alarm(SECONDS)
    try:
        result = CliRunner().invoke(app, line)
    except Begun as begun:
        return "begun", str(begun)
    finally:
        signal.alarm(0)
    if isinstance(result.exception, UserError):
        return "refused", str(result.exception)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return ("refused", result.stderr.strip()) if result.exit_code else ("done", "")


def judge(line: list[str], end: str, sentence: str) -> str:
    """What is wrong with the end of a command line; empty if nothing."""
    if end != "refused" or line[0] == "doctor":  # which says what it finds
        return ""
    if not sentence or "\n" in sentence or not sentence.isprintable():
        return "not one line"
    if len(sentence) > 900:
        return "too long"
    if any(len(part) > 2 * MOST_SHOWN and part[: 2 * MOST_SHOWN] in sentence for part in line):
        return "repeats too much"
    return ""


def tried(line: list[str], value: str | None = None, kind: str = "") -> str:
    """Run a command line: what is wrong with how it ended, or an empty text."""
    shown = " ".join(part if len(part) < 40 else f"{part[:30]}…({len(part)})" for part in line)
    try:
        end, sentence = call(*line)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | pytest.fail.Exception):
            raise
        return f"{shown!r}: {type(error).__name__}: {str(error)[:200]}"
    wrong = judge(line, end, sentence)
    if end != "refused" and value is not None and kind != "flag" and not meaningful(line, value, kind):
        wrong = f"is {end}"
    return f"{shown!r}: {wrong}: {sentence[:200]}" if wrong else ""


def meaningful(line: list[str], value: str, kind: str) -> bool:
    """Whether a command may accept a value."""
    if not value.strip() or len(value.encode(errors="surrogateescape")) > 255:
        return False
    if kind == "number":
        return value in ("0", "1.5")  # a seed, a number of retries; GB
    if value == "1.5" and line[-2].endswith("timeout"):
        return True
    return kind == "path" or value in ("-", "--") or (value == "0" and line[-2] in ("--host", "--checkpoint-every"))


@pytest.mark.parametrize("command", COMMANDS)
def test_no_value_ends_in_a_traceback_or_never(command: str, place: Path) -> None:
    wrong = []
    for seed in range(ROUNDS):
        draw = random.Random(f"{command} {seed}")
        for parameter in parameters_of(command):
            option, kind = option_of(parameter), kind_of(command, parameter)
            for value in draw.sample(malformed(draw), VALUES if ROUNDS == 1 else 40):
                argument = [ARGUMENTS[command]] if option and command in ARGUMENTS else []
                if kind == "flag":
                    line = [command, *argument, f"{option}={value}"]
                else:
                    line = [command, *argument, *([option] if option else []), value]
                wrong.append(tried(line, value, kind))
    assert not (found := [one for one in wrong if one]), "\n".join(found)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_line_of_many_options_ends_in_a_traceback_or_never(command: str, place: Path) -> None:
    wrong = []
    for seed in range(ROUNDS):
        draw = random.Random(f"{command} {seed}")
        for _ in range(LINES):
            line = [command]
            for parameter in draw.choices(parameters_of(command), k=draw.randint(1, 5)):  # some of them twice
                option, value = option_of(parameter), draw.choice(["1", "2", "smoke", "cpu", *malformed(draw)])
                line += (
                    [value]
                    if option is None
                    else [option]
                    if kind_of(command, parameter) == "flag"
                    else [option, value]
                )
            wrong.append(tried(line))
    assert not (found := [one for one in wrong if one]), "\n".join(found)

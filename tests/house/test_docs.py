"""README and docs, tried: every block of Python runs, and every command line is one that the commands understand."""

import contextlib
import doctest
import importlib.util
import json
import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from deepnet_edu import RESIDUALS, ModelConfig, build_model
from deepnet_edu.cli import app
from deepnet_edu.course.places import ROOT
from deepnet_edu.experiment.config import find_run
from deepnet_edu.planning import Plan
from deepnet_edu.training.__main__ import main as one_rank

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SMALL = ModelConfig("decoder", "lm", 2, d_model=16, n_heads=2, d_ff=32, vocab_size=128)
#: What a page takes for given, by name.
GIVEN: dict[str, dict[str, Any]] = {
    "README.md": {"tokens": torch.arange(8)[None]},
    "docs/depth.md": {"model": build_model(SMALL)},
}
#: Sizes that would take minutes, and what they are here. All else runs as it is written.
SMALLER = {
    "decoder_layers=1000, d_model": "decoder_layers=10, d_model",
    '"lm", 100, d_model=64': '"lm", 2, d_model=64',
    "steps=100, save_every=50": "steps=2, save_every=1",
    "Plan(shard=4)": "Plan()",  # four ranks, started by torchrun
}


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page)], ids=named)
def test_the_pages_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Block after block, in one namespace. What a block shows of its output is what it prints."""
    monkeypatch.chdir(tmp_path)
    space = dict(GIVEN.get(named(page), {}))
    for block in python_blocks(page):
        if block.startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(block, space, page.name, str(page), 0)
            assert doctest.DocTestRunner(verbose=False).run(test, clear_globs=False).failed == 0
            continue
        for size, smaller in SMALLER.items():
            block = block.replace(size, smaller)
        exec(compile(block, str(page), "exec"), space)


def test_no_size_is_made_smaller_that_no_page_has() -> None:
    blocks = "".join(block for page in PAGES for block in python_blocks(page))
    assert [size for size in SMALLER if size not in blocks] == []


#: Placeholders of a command line, for something that the reader fills in.
FILLED = {
    "$address": "127.0.0.1",
    "tls://$0:8786": "tls://127.0.0.1:8786",
    '"$(hostname -I | cut -d" " -f1)"': "127.0.0.1",
    "$port": "9000",
}


def command_lines(page: Path) -> tuple[set[str], set[str]]:
    """Command lines of a page's blocks, which are whole, and mentions in its sentences, which need not be."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    for word, value in FILLED.items():
        text = text.replace(word, value)
    blocks = "".join(re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    blocks += "\n".join(line for line in text.splitlines() if line.startswith("    "))
    found = re.findall(r"deepnet-edu ([a-z][^\n&'`<]*)", re.sub(r"`[^`\n]*`", "", blocks))
    mentioned = re.findall(r"`(?:[.\w/]*/)?(?:\w+=\w+ )?deepnet-edu ([a-z][^`]*)`", " ".join(text.split()))
    return {line.split(" #")[0].strip() for line in found}, {line.strip() for line in mentioned}


ALL = {page: command_lines(page) for page in PAGES}
WHOLE = sorted({line for lines, _ in ALL.values() for line in lines})
MENTIONED = sorted({line for _, lines in ALL.values() for line in lines})
EXAMPLES = sorted(
    line
    for command in app.registered_commands
    for line in re.findall(r"Example: deepnet-edu (.*)", (command.callback and command.callback.__doc__) or "")
)


def words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # the end of a text that a shell passes on
        return shlex.split(line.rstrip().removesuffix('"'))


def parsed(arguments: list[str]) -> Any:
    """As the command reads its line, before it does anything.

    Raises:
        Exception: Typer's, where it does not understand it.
    """
    group = typer.main.get_command(app)
    command = group.commands[arguments[0]]  # type: ignore[attr-defined]
    return command.make_context(arguments[0], arguments[1:])


def test_pages_and_commands_have_examples() -> None:
    assert len(WHOLE) > 20
    assert len(EXAMPLES) == len(app.registered_commands)
    used = {words(line)[0] for line in WHOLE + MENTIONED}
    assert {"doctor", "lab", "run", "train", "probe", "plan", "report", "workers", "explore"} <= used


@pytest.mark.parametrize("line", [*WHOLE, *EXAMPLES])
def test_every_command_line_of_the_pages_is_understood(line: str) -> None:
    assert parsed(words(line)) is not None


@pytest.mark.parametrize("line", MENTIONED)
def test_what_sentences_mention_are_commands_and_their_options(line: str) -> None:
    name, *rest = words(line)
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.split("=")[0] for word in rest if word.startswith("-")} <= known | {"--help"}


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader has the files that the pages name."""
    from nbformat import v4, write

    monkeypatch.chdir(tmp_path)
    (tmp_path / "my").mkdir()
    notebook = v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    source = "DEPTH = 4\nWIDTH = 8\nRESIDUAL = 'deepnorm'\nSEED = 0"
    notebook.cells = [v4.new_code_cell(source, metadata={"tags": ["parameters"]})]
    write(notebook, tmp_path / "my" / "own.ipynb")
    for name in ("my_run.toml", "runs/laptop-1000/run.toml", "runs/gpu-1000/run.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(find_run("laptop-1000", []).to_toml())
    return tmp_path


PLANNED = [
    line for line in WHOLE if words(line)[0] in ("run", "train") and not {"--resume", "--cluster"} & {*words(line)}
]


@pytest.mark.parametrize("line", PLANNED)
def test_what_can_be_planned_is_planned(reader: Path, line: str) -> None:
    arguments = words(line)
    result = CliRunner().invoke(app, [*arguments, *([] if "--dry-run" in arguments else ["--dry-run"])])
    if "auto" in arguments and "No plan for 4 GPUs" in str(result.exception):
        return  # of this machine's size, which is an answer too
    assert result.exit_code == 0, result.output + repr(result.exception)


@pytest.mark.parametrize("line", ["models --residuals", "plan small_1000", "plan small_1000 --json", "models --json"])
def test_what_takes_no_time_is_run(line: str) -> None:
    assert line in WHOLE + MENTIONED or "--json" in line
    result = CliRunner().invoke(app, words(line))
    assert result.exit_code == 0, result.output
    if "--json" in line:
        json.loads(result.output)


def of_torchrun() -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8").replace("\\\n", " ") for page in PAGES)
    found = re.findall(r"-m deepnet_edu\.training ([^\n\"`&]*)", re.sub(r"\n(?=shard)", " ", text))
    return sorted({line.strip() for line in found} - {""})


@pytest.mark.parametrize("line", of_torchrun())
def test_what_torchrun_starts_is_understood(line: str, reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone it says that it is one rank of many, after it has read its line."""
    arguments = shlex.split(line.replace("…", ""))
    monkeypatch.setattr("sys.argv", ["training", *arguments])
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit, match="one rank of many"):
        one_rank()
    for option, value in pairwise(arguments):
        if option == "--plan":
            assert Plan.parse(value).ranks > 1


def test_scripts_modules_and_targets_that_pages_name_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    scripts = {*re.findall(r"\b((?:benchmarks|tests|solutions)/\w+\.py)", text)}
    assert [script for script in scripts if not (ROOT / script).exists() and "NN_" not in script] == []
    modules = {*re.findall(r"python -m ([\w.]+)", text)}
    with contextlib.suppress(ValueError):
        assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    makefile = (ROOT / "Makefile").read_text()
    targets = {*re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z]+)`", text)}
    assert {"lab", "test", "build", "course", "record", "bench", "clean"} <= targets
    assert [target for target in targets if f"\n{target}:" not in makefile] == []


def test_the_readme_counts_the_rules() -> None:
    (said,) = re.findall(r"sorted\(RESIDUALS\) +# (\d+) rules", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert int(said) == len(RESIDUALS)

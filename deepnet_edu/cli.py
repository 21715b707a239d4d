"""The command line: deepnet-edu doctor | lab | explore | progress | run | build | probe | plan | bench | models."""

import io
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deepnet_edu.messages import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="How Transformers are made a thousand layers deep. Start with: deepnet-edu lab",
)
Workspace = Annotated[Path | None, typer.Option(help="Folder of your own copies; workspace/ in the clone by default.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]


def main() -> None:
    """Run the command line; a mistake of the user's is one sentence and exit status 1."""
    # Must stand before torch is loaded: idle threads that spin slow small models down by far.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A pipe under Windows may not know all letters; a question mark is better than a stack trace.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(1)


@app.command()
def doctor(workspace: Workspace = None, as_json: Json = False) -> None:
    """Check that lessons can run here, and say what to type where they cannot.

    Example: deepnet-edu doctor --json
    """
    from deepnet_edu.course.doctor import examine
    from deepnet_edu.course.places import WORKSPACE

    findings = examine(workspace or WORKSPACE)
    failed = any(finding.status == "problem" for finding in findings)
    if as_json:
        print(json.dumps({"ready": not failed, "findings": [asdict(finding) for finding in findings]}, indent=1))
    else:
        console = Console(highlight=False)
        mark = {"ok": "[green]ok[/]", "warning": "[yellow]look[/]", "problem": "[red]PROBLEM[/]"}
        for finding in findings:
            found = escape(f"{finding.name}: {finding.found}")
            console.print(f"{mark[finding.status]:>20}  {found}", soft_wrap=True)
            if finding.mend:
                console.print(f"          mend it with: {finding.mend}", soft_wrap=True, markup=False)
        console.print("Lessons cannot run yet." if failed else "Lessons can run: deepnet-edu lab")
    raise typer.Exit(1 if failed else 0)


@app.command()
def lab(
    lesson: Annotated[str, typer.Argument(help="Number or name of the lesson to open.")] = "00",
    workspace: Workspace = None,
) -> None:
    """Open JupyterLab on your own copy of the lessons; what you edited is never overwritten.

    With BROWSER=none it only prints the address.

    Example: deepnet-edu lab 00
    """
    from deepnet_edu.course import lab as jupyter
    from deepnet_edu.course.places import WORKSPACE, find_lesson
    from deepnet_edu.course.workspace import update

    name = find_lesson(lesson)
    folder = (workspace or WORKSPACE).resolve()
    result = update(folder)
    if result.renewed:
        print("Newer versions of lessons that you had not touched: " + ", ".join(result.renewed))
    for edited, beside in result.beside:
        print(f"There is a newer version of {edited}; yours stays as it is, the new one is {beside}.")
    raise typer.Exit(jupyter.start(folder, name, browser=os.environ.get("BROWSER") != "none"))


@app.command()
def explore(
    names: Annotated[
        list[str] | None, typer.Argument(help="signal, map, constants, race, cost or game; all by default.")
    ] = None,
    workspace: Workspace = None,
) -> None:
    """Open explorers of depth and α in the browser, without a notebook.

    With BROWSER=none it only prints the address.

    Example: deepnet-edu explore signal
    """
    from deepnet_edu.course.places import WORKSPACE
    from deepnet_edu.explorers import EXPLORERS
    from deepnet_edu.explorers.app import start
    from deepnet_edu.messages import unknown

    for name in names or []:
        if name not in EXPLORERS:
            raise UserError(unknown("explorer", name, EXPLORERS))
    folder = (workspace or WORKSPACE).resolve()
    raise typer.Exit(start(names or list(EXPLORERS), folder, browser=os.environ.get("BROWSER") != "none"))


@app.command()
def progress(workspace: Workspace = None, as_json: Json = False) -> None:
    """Show which exercises are done, tried and open, lesson by lesson, the time spent, and what is next.

    Example: deepnet-edu progress
    """
    from deepnet_edu.checks import check
    from deepnet_edu.course.places import WORKSPACE
    from deepnet_edu.progress import FILE, by_lesson, next_step, read, understood

    file = (workspace or WORKSPACE) / FILE
    known = read(file)
    if file.exists() and not understood(file, known):
        print(f"{file} is damaged: the next check keeps it beside and goes on with what can be read.", file=sys.stderr)
    lessons = by_lesson(known, check.lesson_of)
    if as_json:
        print(json.dumps([asdict(lesson) for lesson in lessons], indent=1))
    else:
        for lesson in lessons:
            print(lesson)
        print(next_step(lessons))


@app.command()
def run(
    lessons: Annotated[list[str] | None, typer.Argument(help="Numbers or names of lessons; all by default.")] = None,
    profile: Annotated[str, typer.Option(help="Size: smoke, cpu, gpu or record.")] = "cpu",
    given: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, a parameter of the notebook; may be repeated.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the executed notebooks; runs/ in the clone.")] = None,
    timings: Annotated[bool, typer.Option("--timings", help="Keep time and memory in docs/timings.json.")] = False,
    as_json: Json = False,
) -> None:
    """Execute solutions, and check that everything in them really ran.

    Example: deepnet-edu run 01 07 --profile smoke
    """
    from deepnet_edu.course.places import RUNS, find_lesson, lesson_names
    from deepnet_edu.course.run import execute, keep_timings, plan

    names = [find_lesson(lesson) for lesson in lessons] if lessons else lesson_names()
    runs = plan(names, profile, given or [], (out or RUNS).resolve())
    for one in runs:
        execute(one)
        if timings:
            keep_timings([one])
        if not as_json:
            print(one, flush=True)
    if as_json:
        print(json.dumps([asdict(one) for one in runs], indent=1, default=str))
    raise typer.Exit(1 if any(one.problems for one in runs) else 0)


@app.command()
def build(
    lessons: Annotated[
        list[str] | None, typer.Argument(help="Lessons whose solutions are executed where needed; all by default.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; fail if a notebook is not up to date.")
    ] = False,
) -> None:
    """Make lessons/*.ipynb and the executed solutions/*.ipynb from solutions/*.py.

    Example: deepnet-edu build --check
    """
    from deepnet_edu.course.build import build_all
    from deepnet_edu.course.places import SOLUTIONS, find_lesson

    names = [find_lesson(lesson, SOLUTIONS, "py") for lesson in lessons or []]
    for line in build_all(check=check, only=names):
        print(line)


@app.command()
def probe(
    residual: Annotated[str, typer.Option(help="Residual rule; the list: deepnet-edu models --residuals")] = "deepnorm",
    layers: Annotated[int, typer.Option(help="Layers of each stack.")] = 1000,
    architecture: Annotated[str, typer.Option(help="encoder, decoder or encoder_decoder.")] = "decoder",
    d_model: Annotated[int, typer.Option(help="Width of the stream.")] = 64,
    heads: Annotated[int, typer.Option(help="Attention heads.")] = 4,
    tokens: Annotated[int, typer.Option(help="Tokens per sequence, of 4 sequences.")] = 32,
    seed: Annotated[int, typer.Option(help="Of weights and batch.")] = 0,
    update: Annotated[bool, typer.Option("--update", help="Also measure the first SGD step.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a freshly initialised model on random tokens, sub-layer by sub-layer, and judge it.

    Exit status 1 says FAIL.

    Example: deepnet-edu probe --residual deepnorm --layers 1000 --json
    """
    from deepnet_edu.config import ARCHITECTURE_OF, ModelConfig
    from deepnet_edu.models import build_model, random_batch
    from deepnet_edu.probing import model_update
    from deepnet_edu.probing import probe as measure

    task = next((task for task, needed in ARCHITECTURE_OF.items() if needed == architecture), "lm")
    try:
        config = ModelConfig(
            architecture,
            task,
            decoder_layers=layers if "decoder" in architecture else 0,
            encoder_layers=layers if "encoder" in architecture else 0,
            d_model=d_model,
            n_heads=heads,
            d_ff=4 * d_model,
            vocab_size=64,
            residual=residual,
            max_length=tokens,
        )
        model, batch = build_model(config, seed=seed), random_batch(config, 4, tokens, seed)
        profile = measure(model, batch)
        found = model_update(model, batch) if update else None
    except ValueError as error:
        raise UserError(str(error)) from None
    verdict = profile.judge(found)
    if as_json:
        print(json.dumps({**asdict(verdict), "update": found, **profile.to_dict()}, ensure_ascii=False))
    else:
        shown = max(1, len(profile.stack) // 10)
        columns = ["variance", "token_similarity", "input_share", "gradient_norm", "norm_gain"]
        values = [getattr(profile, name)[::-shown][::-1] for name in columns]
        where = list(zip(profile.stack, profile.layer, profile.sublayer, strict=True))[::-shown][::-1]
        print_table(
            ["stack", "layer", "sub-layer", *(name.replace("_", " ") for name in columns)],
            [
                [stack, str(layer + 1), kind, *(f"{value[i]:.4g}" for value in values)]
                for i, (stack, layer, kind) in enumerate(where)
            ],
        )
        print(f"{profile.label}: {verdict}")
    raise typer.Exit(0 if verdict.passed else 1)


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help="A shape's name, small_1000 for example, or a JSON file of fields.")],
    sequences: Annotated[int, typer.Option(help="Sequences in a batch.")] = 4,
    tokens: Annotated[int, typer.Option(help="Tokens of a sequence.")] = 64,
    checkpoint_every: Annotated[str, typer.Option(help="Layers computed again together, or auto; 0 keeps all.")] = "0",
    precision: Annotated[str, typer.Option(help="float32, float64, bfloat16, mixed or autocast.")] = "float32",
    path: Annotated[str, typer.Option(help="auto, plain or fast.")] = "auto",
    device: Annotated[str, typer.Option(help="cpu, or cuda: tensors alone, as a GPU holds them.")] = "cpu",
    as_json: Json = False,
) -> None:
    """Say what memory a training run needs, part by part, without building the model.

    Example: deepnet-edu plan small_1000 --checkpoint-every 1 --json
    """
    from deepnet_edu.planning import find_shape, training_memory

    config = find_shape(model)
    every = int(checkpoint_every) if checkpoint_every.isdecimal() else checkpoint_every
    try:
        found = training_memory(
            config, sequences, tokens, checkpoint_every=every, path=path, precision=precision, device=device
        ).to_dict()
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        print(json.dumps({"model": model, **found}))
        return
    taken, parameters, entering = found.pop("path"), found.pop("parameters"), found.pop("entering")
    print_table(["part", "MB"], [[name, f"{value / 1e6:,.1f}"] for name, value in found.items()])
    print(f"{model}: {parameters:,} parameters, {config.title}, by the {taken} path, {precision}.")
    if entering == found["total"]:
        print("The peak comes before the first step, when weights move to the optimizer's buffer.")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="depth, explorers, memory, peers or updates: a file of benchmarks/.")
    ] = "depth",
) -> None:
    """Run a benchmark of the clone; what follows its name goes to it.

    Example: deepnet-edu bench depth --rounds 1
    """
    import subprocess

    from deepnet_edu.course.places import find_benchmark

    raise typer.Exit(subprocess.run([sys.executable, str(find_benchmark(name)), *context.args]).returncode)


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """Rows under columns, as wide as they need to be where nobody's window limits them."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 400
    console.print(table)


@app.command()
def models(
    residuals: Annotated[bool, typer.Option("--residuals", help="The residual rules with formula and source.")] = False,
    as_json: Json = False,
) -> None:
    """List what can be built: architectures and tasks, or all residual rules.

    Example: deepnet-edu models --residuals
    """
    from deepnet_edu.config import ARCHITECTURE_OF
    from deepnet_edu.residual import RESIDUALS

    rules = [{"name": name, **rule.facts()} for name, rule in RESIDUALS.items()]
    tasks = [{"task": task, "architecture": architecture} for task, architecture in ARCHITECTURE_OF.items()]
    if as_json:
        print(json.dumps(rules if residuals else tasks, indent=1, ensure_ascii=False))
    elif residuals:
        print_table(
            ["rule", "formula as computed", "constants and init", "defined for", "sure", "source"],
            [
                [str(rule[key]) for key in ("name", "formula", "init")]
                + [", ".join(rule["architectures"]), rule["sure"], rule["source"]]
                for rule in rules
            ],
        )
        print("Why not elsewhere: deepnet-edu models --residuals --json")
    else:
        for one in tasks:
            print(f"ModelConfig({one['architecture']!r}, {one['task']!r}, …)")
        print("Residual rules: deepnet-edu models --residuals")

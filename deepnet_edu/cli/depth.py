"""Commands about depth: probe, plan, bench, models."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deepnet_edu.cli.app import Json, app, print_table
from deepnet_edu.messages import UserError


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
    model: Annotated[
        str, typer.Argument(help="A shape's name, small_1000 for example, or a JSON file with its fields.")
    ],
    sequences: Annotated[int, typer.Option(help="Sequences in a batch.")] = 4,
    tokens: Annotated[int, typer.Option(help="Tokens of a sequence.")] = 64,
    checkpoint_every: Annotated[int, typer.Option(help="Layers computed again together; 0 keeps all.")] = 0,
    precision: Annotated[str, typer.Option(help="float32, float64, bfloat16 or mixed.")] = "float32",
    path: Annotated[str, typer.Option(help="auto, plain or fast.")] = "auto",
    as_json: Json = False,
) -> None:
    """Say what memory a training run needs, part by part, without building the model.

    Example: deepnet-edu plan small_1000 --checkpoint-every 1 --json
    """
    from deepnet_edu.planning import find_shape, training_memory

    config = find_shape(model)
    try:
        found = training_memory(
            config, sequences, tokens, checkpoint_every=checkpoint_every, path=path, precision=precision
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

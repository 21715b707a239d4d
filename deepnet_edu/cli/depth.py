"""Commands about depth: probe, plan, bench, models."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deepnet_edu.cli.app import Json, app, print_table, whole
from deepnet_edu.fields import whole_number
from deepnet_edu.messages import UserError


@app.command()
def probe(
    residual: Annotated[str, typer.Option(help="Residual rule; the list: deepnet-edu models --residuals")] = "deepnorm",
    layers: Annotated[int, typer.Option(parser=whole("--layers", 1), metavar="N", help="Layers of each stack.")] = 1000,
    architecture: Annotated[str, typer.Option(help="encoder, decoder or encoder_decoder.")] = "decoder",
    d_model: Annotated[int, typer.Option(parser=whole("--d-model", 1), metavar="N", help="Width of the stream.")] = 64,
    heads: Annotated[int, typer.Option(parser=whole("--heads", 1), metavar="N", help="Attention heads.")] = 4,
    tokens: Annotated[
        int, typer.Option(parser=whole("--tokens", 2), metavar="N", help="Tokens per sequence, of 4 sequences.")
    ] = 32,
    seed: Annotated[
        int, typer.Option(parser=whole("--seed", 0, 2**63 - 1), metavar="N", help="Of weights and batch.")
    ] = 0,
    update: Annotated[bool, typer.Option("--update", help="Also measure the first SGD step.")] = False,
    as_json: Json = False,
) -> None:
    """Measure a freshly initialised model on random tokens, sub-layer by sub-layer, and judge it.

    Exit status 1 says FAIL, 3 UNSURE.

    Example: deepnet-edu probe --residual deepnorm --layers 1000 --json
    """
    from deepnet_edu.config import ARCHITECTURE_OF, ModelConfig
    from deepnet_edu.models import build_model, random_batch
    from deepnet_edu.planning.limits import probe_needs, refuse_beyond
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
        refuse_beyond(
            f"A probe with --layers {layers:,}, --d-model {d_model:,} and --tokens {tokens:,}",
            *probe_needs(config, 4, tokens, update=update),
            "use smaller ones",
        )
        model, batch = build_model(config, seed=seed), random_batch(config, 4, tokens, seed)
        profile = measure(model, batch)
        found = model_update(model, batch) if update else None
    except ValueError as error:
        raise UserError(str(error)) from None
    verdict = profile.judge(found)
    if as_json:
        print(
            json.dumps(
                {**asdict(verdict), "verdict": verdict.word, "update": found, **profile.to_dict()}, ensure_ascii=False
            )
        )
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
    raise typer.Exit({"PASS": 0, "FAIL": 1, "UNSURE": 3}[verdict.word])


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help="A shape's name, small_1000 for example, or a JSON file of fields.")],
    sequences: Annotated[
        int, typer.Option(parser=whole("--sequences", 1), metavar="N", help="Sequences in a batch.")
    ] = 4,
    tokens: Annotated[int, typer.Option(parser=whole("--tokens", 1), metavar="N", help="Tokens of a sequence.")] = 64,
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
    every = checkpoint_every if (number := whole_number(checkpoint_every)) is None else number
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
        for rule in rules:
            if rule["departs"]:
                print(f"{rule['name']} departs from its authors: {rule['departs']}")
        print("Why not elsewhere: deepnet-edu models --residuals --json")
    else:
        for one in tasks:
            print(f"ModelConfig({one['architecture']!r}, {one['task']!r}, …)")
        print("Residual rules: deepnet-edu models --residuals")

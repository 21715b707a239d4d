"""Commands about depth: probe, bench."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from deepnet_edu.cli.app import Json, app, print_table, whole
from deepnet_edu.course.places import benchmark_names
from deepnet_edu.messages import UserError
from deepnet_edu.residual import DEFAULT


@app.command()
def probe(
    residual: Annotated[str, typer.Option(help="Residual rule; the list: deepnet-edu models --residuals")] = DEFAULT,
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
    from deepnet_edu.model import build_model, random_batch
    from deepnet_edu.model.config import ARCHITECTURE_OF, ModelConfig
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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"A file of benchmarks/: {', '.join(benchmark_names())}.")] = "depth",
) -> None:
    """Run a benchmark of the clone; what follows its name goes to it.

    Example: deepnet-edu bench depth --rounds 1
    """
    import subprocess

    from deepnet_edu.course.places import find_benchmark

    raise typer.Exit(subprocess.run([sys.executable, str(find_benchmark(name)), *context.args]).returncode)

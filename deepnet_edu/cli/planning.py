"""Commands about models on paper: plan, models."""

import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from deepnet_edu.cli.app import Json, app, print_table, whole
from deepnet_edu.fields import whole_number
from deepnet_edu.messages import UserError, shown

_LARGEST = 1e30


def amount(option: str, most: float = _LARGEST) -> Callable[[Any], float]:
    """How a command reads a positive number, 100e9 for example, for ``typer.Option(parser=…)``.

    Args:
        option: its name, for the sentence.
        most: that the number may be.
    """

    def number(given: Any) -> float:
        try:
            value = float(given) if str(given).isascii() else 0.0
        except ValueError:
            value = 0.0
        if not 0 < value <= most:
            limit = "" if most == _LARGEST else f", at most {most:g}"
            raise UserError(f"{option} {shown(given)}: expected a positive number{limit}, for example 100e9 or 2.50.")
        return value

    return number


@app.command()
def plan(
    model: Annotated[
        str, typer.Argument(help="A name that deepnet-edu models prints, small_1000, or a TOML or JSON file of fields.")
    ],
    sequences: Annotated[
        int | None,
        typer.Option(parser=whole("--sequences", 1), metavar="N", help="Sequences in a batch; 4 by default."),
    ] = None,
    tokens: Annotated[
        float | None,
        typer.Option(
            parser=amount("--tokens"),
            metavar="N",
            help="Tokens of a sequence, 64 by default; with --gpu, of the whole run.",
        ),
    ] = None,
    checkpoint_every: Annotated[
        str | None, typer.Option(help="Layers computed again together, or auto; 0, the default, keeps all.")
    ] = None,
    recompute: Annotated[
        str | None,
        typer.Option(help="Layers of each stack that are, the lowest; all, the default; auto: as few as can be."),
    ] = None,
    keep_attention: Annotated[
        bool | None, typer.Option("--keep-attention", help="Checkpoints keep what attention gave.")
    ] = None,
    memory: Annotated[
        float | None,
        typer.Option(parser=amount("--memory"), metavar="GB", help="Of the device, for --recompute auto."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, the default, float64, bfloat16, mixed or autocast.")
    ] = None,
    path: Annotated[str | None, typer.Option(help="auto, the default, plain or fast.")] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu, the default, or cuda: tensors alone, as a GPU holds them.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="Plan a whole run on GPUs: v100, a100-80gb, h100, h200, …")] = None,
    count: Annotated[
        int | None, typer.Option(parser=whole("--count", 1, 10**6), metavar="N", help="GPUs; 1 by default.")
    ] = None,
    price: Annotated[
        float | None, typer.Option(parser=amount("--price"), metavar="DOLLARS", help="Of one GPU for an hour.")
    ] = None,
    length: Annotated[
        int | None, typer.Option(parser=whole("--length", 1), metavar="N", help="Tokens of a sequence, with --gpu.")
    ] = None,
    utilisation: Annotated[
        float | None,
        typer.Option(parser=amount("--utilisation", 1), metavar="SHARE", help="Of the peak; by default as measured."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Say what memory a training run needs, part by part; with --gpu what a whole run needs, takes and costs.

    Nothing is built. On GPUs a run is in bfloat16 by autocast, with the plan and the checkpoints that fit.

    Example: deepnet-edu plan deepnet-1000 --gpu h200 --count 8 --tokens 100e9 --price 2.50
    """
    here: dict[str, Any] = {"--recompute": recompute, "--keep-attention": keep_attention, "--memory": memory}
    here |= {"--checkpoint-every": checkpoint_every, "--precision": precision, "--path": path, "--device": device}
    there = {"--count": count, "--price": price, "--length": length, "--utilisation": utilisation}
    for name, value in (there if gpu is None else here).items():
        if value is not None:
            instead = "add --gpu h200, for example, or leave it out" if gpu is None else "leave out one of them"
            raise UserError(f"{name} is for a plan {'with' if gpu is None else 'without'} --gpu: {instead}.")
    if gpu is not None:
        if tokens is None:
            raise UserError("--gpu plans a whole run, so say how many tokens it reads: for example --tokens 100e9.")
        return _whole_run(model, gpu, count or 1, tokens, as_json, price, utilisation, sequences, length)
    if tokens is not None and (tokens != int(tokens) or tokens > 10**9):
        raise UserError(
            f"--tokens {tokens:g}: expected a whole number from 1 to 1,000,000,000, tokens of a sequence; "
            "those of a whole run go with --gpu."
        )
    from deepnet_edu.planning import fewest_recomputed, find_shape, training_memory

    config = find_shape(model)
    every, low = (_count_or_word(given) for given in (checkpoint_every or "0", recompute or "all"))
    if (low == "auto") != (memory is not None):
        raise UserError("--recompute auto counts layers for a device's memory: give both, for example --memory 141.")
    precision = precision or "float32"
    try:
        batch = sequences or 4, int(tokens or 64)
        how: dict[str, Any] = {
            "checkpoint_every": every,
            "keep_attention": bool(keep_attention),
            "path": path or "auto",
            "precision": precision,
            "device": device or "cpu",
        }
        if memory is not None:
            low = fewest_recomputed(config, *batch, int(1e9 * memory), **how)
        found = training_memory(config, *batch, recompute=low, **how).to_dict()
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        print(json.dumps({"model": model, "recompute": low, **found}))
        return None
    taken, parameters, entering = found.pop("path"), found.pop("parameters"), found.pop("entering")
    print_table(["part", "MB"], [[name, f"{value / 1e6:,.1f}"] for name, value in found.items()])
    print(f"{model}: {parameters:,} parameters, {config.title}, by the {taken} path, {precision}.")
    if low != "all":
        print(f"Of each stack the lowest {low:,} layers are computed again; those above keep all.")
    if entering == found["total"]:
        print("The peak comes before the first step, when weights move to the optimizer's buffer.")
    return None


def _count_or_word(given: str) -> int | str:
    return given if (number := whole_number(given)) is None else number


def _whole_run(
    model: str,
    gpu: str,
    count: int,
    tokens: float,
    as_json: bool,
    price: float | None,
    utilisation: float | None,
    sequences: int | None,
    length: int | None,
) -> None:
    from deepnet_edu.planning import estimate, find_gpu, find_shape

    config, kind = find_shape(model), find_gpu(gpu)
    try:
        found = estimate(
            config,
            kind,
            count,
            tokens,
            price=price,
            utilisation=utilisation,
            sequences=sequences or 0,
            length=length or 0,
        )
    except ValueError as error:
        raise UserError(str(error)) from None
    if as_json:
        print(
            json.dumps({"model": model, "gpu": kind.to_dict(), "tokens": tokens, **found.to_dict()}, ensure_ascii=False)
        )
        return
    spread = f"{found.plan.title}, {found.sequences:,} × {found.length:,} tokens, checkpoints every: "
    spread += f"{found.checkpoint_every or 'none'}"
    hours, (low, high) = 24 * found.count, (found.money.low, found.money.high)
    rows = [
        ["GPUs", f"{found.count:,} × {kind.title}"],
        ["memory of each", f"{found.memory / 1e9:,.1f} of {found.available / 1e9:g} GB: {spread}"],
        ["operations", f"{sum(found.flops.values()):.3g}, of them attention {_share(found.flops, 'attention')}"],
        ["of the peak", _span(found.utilisation.low, found.utilisation.high, "{:.0%}")],
        ["days", _span(found.days.low, found.days.high, "{:,.3g}")],
        ["GPU-hours", _span(hours * found.days.low, hours * found.days.high, "{:,.0f}")],
        ["dollars", _span(low, high, "{:,.0f}")],
        ["MWh", _span(found.energy.low / 1000, found.energy.high / 1000, "{:,.3g}")],
    ]
    print(f"{model}: {found.parameters:,} parameters, {config.title}, {tokens:,.4g} tokens.")
    if not found.fits:
        print(f"It does not fit on {found.wanted:,}; the smallest plan that does, of twice as many and so on:")
    print_table(["what", "of the whole run"], rows)
    if found.sending is None:
        print("Its GPUs have no link of a known speed: what sending takes is left out.")
    elif found.sent:
        print(f"Each sends {found.sent / 1e9:,.3g} GB a step: {found.sending:.0%} of the fastest run's time.")
    for name, span in (("Days", found.days), ("Dollars", found.price), ("Energy", found.energy)):
        print(f"{name} rest on: {span.rests_on}.")


def _span(low: float, high: float, form: str) -> str:
    ends = form.format(low), form.format(high)
    return ends[0] if ends[0] == ends[1] else " to ".join(ends)


def _share(parts: dict[str, float], name: str) -> str:
    return f"{parts[name] / sum(parts.values()):.0%}"


@app.command()
def models(
    shape: Annotated[
        list[str] | None, typer.Argument(help="Names from the table, or TOML files of your own; all by default.")
    ] = None,
    residuals: Annotated[bool, typer.Option("--residuals", help="The residual rules with formula and source.")] = False,
    as_json: Json = False,
) -> None:
    """Compare published models and your own: layers, parameters, heads, width; or list all residual rules.

    Example: deepnet-edu models llama-7b my_model.toml --json
    """
    if residuals:
        if shape:
            raise UserError(f"--residuals lists rules, not {shown(shape[0])}: leave out one of them.")
        return _residuals(as_json)
    from deepnet_edu.model.config import ARCHITECTURE_OF
    from deepnet_edu.planning import PUBLISHED

    rows = [_row(name) for name in shape or PUBLISHED]
    if as_json:
        print(json.dumps(rows, indent=1, ensure_ascii=False))
        return None
    depths = [(row["encoder_layers"], row["decoder_layers"], row["layers"]) for row in rows]
    print_table(
        ["name", "model", "architecture", "layers", "in a row", "parameters", "heads", "width", "key features", "sure"],
        [
            [
                *(row["name"], row["model"], row["architecture"].replace("_", "-")),
                *(f"{n}+{m}" if n and m else f"{both:,}", f"{row['connections']:,}"),
                *(f"{row['parameters']:,}", str(row["heads"])),
                *(f"{row['width']:,}", row["features"], row["sure"]),
            ]
            for row, (n, m, both) in zip(rows, depths, strict=True)
        ],
    )
    print("layers: blocks. in a row: residual connections on the longest path, by which papers can be compared.")
    print("read: in its configuration or code. recalled: and the count of all parameters agrees. inferred: in part.")
    if not shape:
        for task, architecture in ARCHITECTURE_OF.items():
            print(f"ModelConfig({architecture!r}, {task!r}, …)")
        print("Sources and notes: deepnet-edu models --json. Residual rules: deepnet-edu models --residuals")
    return None


def _row(given: str) -> dict[str, Any]:
    """The row of a published model, or of a shape of one's own, whose parameters are counted."""
    from deepnet_edu.planning import PUBLISHED, Published, count_parameters, find_shape

    if given in PUBLISHED:
        return {"name": given, **PUBLISHED[given].facts()}
    config = find_shape(given)
    try:
        counted = count_parameters(config)["all"]
    except ValueError as error:
        raise UserError(f"{given}: {error}") from None
    return {"name": given, **Published(given, config, counted, given, "read", "").facts()}


def _residuals(as_json: bool) -> None:
    from deepnet_edu.residual import RESIDUALS

    rules = [{"name": name, **rule.facts()} for name, rule in RESIDUALS.items()]
    if as_json:
        print(json.dumps(rules, indent=1, ensure_ascii=False))
        return
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

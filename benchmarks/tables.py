"""Writes the tables of README.md and docs/depth.md from the records, between their markers, so that no number is typed.

Run with: python benchmarks/tables.py (after depth.py, memory.py and peers.py)
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed will do

from deepnet_edu.files import write_atomic

RESULTS = Path(__file__).parent / "results"
PAGES = [Path(__file__).parents[1] / name for name in ("README.md", "docs/depth.md")]


def table(columns: list[str], rows: list[list[Any]]) -> str:
    """Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(found: dict[str, float] | None, percent: bool = False) -> str:
    """A median and its range."""
    if found is None:
        return ""
    values = [found[name] for name in ("median", "least", "most")]
    texts = [f"{100 * value:.0f}%" if percent else f"{value:.2f}" for value in values]
    return f"{texts[0]} ({texts[1]} to {texts[2]})"


def depth(record: dict[str, Any]) -> str:
    """Contenders."""
    rows = []
    for row in record["rows"]:
        if row["contender"] == "probe":
            continue
        where = [row["contender"], f"{row['layers']:,}", row["threads"]]
        if "missing" in row:
            rows.append([*where, f"missing: {row['missing']}", "", ""])
            continue
        share = spread(row.get("share of the floor"), percent=True)
        rows.append([*where, spread(row["seconds a step"]), share, row["peak, GB"]])
    return table(["contender", "layers", "threads", "seconds a step", "share of the floor", "peak, GB"], rows)


def targets(record: dict[str, Any]) -> str:
    """What was aimed at."""
    said = {True: "met", False: "**missed**", None: "not measured"}
    rows = [[one["what"], one["target"], one["measured"], said[one["met"]]] for one in record["targets"]]
    return table(["", "target", "measured", ""], rows)


def memory(record: dict[str, Any]) -> str:
    """Formula and measurement."""
    rows = []
    for row in record["rows"]:
        config, how = row["config"], row["how"]
        layers = " + ".join(str(config[name]) for name in ("encoder_layers", "decoder_layers") if config[name])
        parts = [config["residual"], f"{layers} layers", f"d = {config['d_model']}", config["activation"]]
        parts += [f"dropout {config['dropout']}"] * bool(config["dropout"])
        parts += [config["norm"] + " norm"] * (config["norm"] != "layer")
        parts += [config["position"]] * (config["position"] != "learned")
        parts += [f"{config['n_kv_heads']} key-value heads"] * bool(config.get("n_kv_heads"))
        parts += [f"{name.replace('_', ' ')} {how[name]}" for name in ("checkpoint_every", "precision") if name in how]
        rows.append(
            [", ".join(parts), row["path"], row["used for"]]
            + [f"{row[name] / 1e9:.2f}" for name in ("total", "measured")]
            + [f"{100 * row['off by']:+.1f}%"]
        )
    return table(["model", "path", "used for", "formula, GB", "measured, GB", "off by"], rows)


def roads(record: dict[str, Any]) -> str:
    """Parts of a layer."""
    rows = [
        [row["part of a layer"], road, f"{time:.1f}"]
        for row in record["rows"]
        for road, time in row["microseconds"].items()
    ]
    return table(["part of a layer", "road", "µs a layer"], rows)


def rules(record: dict[str, Any]) -> str:
    """Residual rules beside torch.nn."""
    found = {(row["rule"], row["width"]): row["times torch.nn"] for row in record["rows"]}
    targets = {one["what"]: one for one in record["targets"]}
    widths = sorted({width for _, width in found})
    rows = [
        [name, *(f"{found[name, width]:.2f}" for width in widths), targets[name]["target"] if name in targets else ""]
        for name in dict.fromkeys(name for name, _ in found)
        if name != "torch.nn"
    ]
    return table(["rule", *(f"d = {width}" for width in widths), f"target at {widths[0]}"], rows)


def gpu(record: dict[str, Any]) -> str:
    """Contenders of each shape that were run, and what the formula of today says of our peaks."""
    from benchmarks.gpu_cases import CASES, formula_bytes

    rows = []
    for name, case in record["cases"].items():
        formula = formula_bytes(CASES[name]) / 1e9
        for row in case["rows"]:
            if "missing" in row:
                continue
            ours = row["contender"].startswith("ours")
            off = [f"{formula:.1f}", f"{round(100 * (formula / row['peak, GB'] - 1)):+d}%"] if ours else ["", ""]
            seconds, share = f"{row['seconds a step']['median']:.3g}", f"{row['model FLOPs utilisation']:.1%}"
            rows.append([name, row["contender"], seconds, share, row["first step, s"], row["peak, GB"], *off])
    columns = ["shape", "contender", "s a step", "of the peak", "first step, s", "peak, GB", "formula, GB", "off by"]
    return table(columns, rows)


def peers(record: dict[str, Any], depth: dict[str, Any], gpu: dict[str, Any]) -> str:
    """Ours beside other libraries, as far as each was measured: an empty cell was not."""
    found = record["decoders"]
    constants = {"deepnet_edu": "our beta", "TorchScale": "beta"}
    encoder = record["constants"]["encoder_decoder, 12 layers"]["encoder"]
    rows: list[tuple[str, dict[str, str], str]] = [
        ("DeepNorm is written", {name: one["how"] for name, one in found.items()}, ""),
        (
            "12 layers, the same weights: outputs and gradients are off ours by",
            {n: "{output:.2g}, {gradient:.2g}".format(**one["off by, 12 layers"]) for n, one in found.items()}
            | {"deepnet_edu": ""},
            "peers",
        ),
        *(
            (
                f"gain of {of}, 100 layers",
                {n: f"{one['gains, 100 layers'][key]:.3f}" for n, one in found.items()},
                "peers",
            )
            for of, key in (
                (f"value, output, FFN (the paper: {800**-0.25:.3f})", "scaled by beta"),
                ("query and key (the paper: 1)", "query and key"),
            )
        ),
        (
            "β of the encoder, 12 + 12 layers (the paper: 0.400)",
            {name: f"{encoder[key]:.3f}" for name, key in constants.items()},
            "peers",
        ),
        *(
            (what, {n: f"{one['at initialisation']['1000'][key]:.2g}" for n, one in found.items()}, "peers")
            for what, key in (
                ("1,000 layers as drawn: gradient, first layer over last", "first over last gradient"),
                ("the same: token similarity at the top", "token similarity"),
            )
        ),
        (
            "an option that does not exist, `deep_norm=True`",
            {n: one["deep_norm=True"].split(":")[0].replace("accepted", "**accepted**") for n, one in found.items()},
            "peers",
        ),
        ("training step of 1,000 layers, one core", _cpu(depth), "depth"),
        ("training step of 500 + 500 layers, one H200", _gpu(gpu), "gpu_depth"),
    ]
    titles = [name if name == "deepnet_edu" else f"{name} {one['version']}" for name, one in found.items()]
    lines = [[what, *(cells.get(name, "") for name in found), by and f"`{by}.py`"] for what, cells, by in rows]
    return table(["", *titles, "by"], lines)


def _cpu(record: dict[str, Any]) -> dict[str, str]:
    return {
        name: f"{row['seconds a step']['median']:.2f} s, {row['peak, GB']:.2f} GB"
        for name, contender in (("deepnet_edu", "ours"), ("TorchScale", "TorchScale"))
        for row in record["rows"]
        if (row["contender"], row["layers"], row["threads"]) == (contender, 1000, 1)
    }


def _gpu(record: dict[str, Any]) -> dict[str, str]:
    """The fastest way of each."""
    found = {}
    for name, contender in (("deepnet_edu", "ours"), ("TorchScale", "TorchScale")):
        rows = [row for row in record["cases"]["a"]["rows"] if row["contender"].startswith(contender)]
        best = min((row for row in rows if "missing" not in row), key=lambda row: row["seconds a step"]["median"])
        found[name] = f"{best['seconds a step']['median']:.2f} s, {best['peak, GB']:.1f} GB"
    return found


def stream_errors(record: dict[str, Any]) -> str:
    """Of a stream in float32 and in half precision, beside float64; both depths of three rules, then the others."""
    keys = ("left", "of what layers add", "gradients")
    rows = []
    for row in record["errors"]:
        values = (row[stream][key] for key in keys for stream in ("float32", "half"))
        rows.append([row["residual"], f"{row['layers']:,}", *("" if one is None else f"{one:.2g}" for one in values)])
    said = ("output", "of what layers add", "gradients")
    return table(["rule", "layers", *(f"{what}, {one}" for what in said for one in ("float32", "half"))], rows)


def stream_curves(record: dict[str, Any]) -> str:
    """The last loss of each training, both streams side by side."""
    found: dict[tuple[Any, ...], dict[str, float]] = {}
    for row in record["curves"]:
        case = (row["residual"], f"{row['layers']:,}", row["steps"], row["rate"], row["seed"])
        found.setdefault(case, {})[row["stream"]] = row["loss"][-1]
    rows = [[*case, *(losses.get(one, "") for one in ("float32", "half"))] for case, losses in found.items()]
    return table(["rule", "layers", "steps", "learning rate", "seed", "stream in float32", "in half"], rows)


def page(text: str) -> str:
    """A page with those of the tables for which it has markers, as the records have them."""
    names = ("depth", "memory", "roads", "rules", "gpu_depth", "peers", "stream")
    records = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    parts = {
        "depth": depth(records["depth"]),
        "targets": targets(records["depth"]),
        "memory": memory(records["memory"]),
        "roads": roads(records["roads"]),
        "rules": rules(records["rules"]),
        "gpu": gpu(records["gpu_depth"]),
        "stream": stream_errors(records["stream"]),
        "stream curves": stream_curves(records["stream"]),
        "peers": peers(records["peers"], records["depth"], records["gpu_depth"]),
    }
    for name, made in parts.items():
        begin, end = f"<!-- {name}, from the record -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        if found:
            text = f"{before}{begin}\n\n{made}\n\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    for path in PAGES:
        write_atomic(path, page(path.read_text(encoding="utf-8")))

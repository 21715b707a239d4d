"""Writes the tables of docs/depth.md from the records, between their markers, so that no number is typed.

Run with: python benchmarks/tables.py (after depth.py and memory.py)
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that nobody installed will do

from deepnet_edu.files import write_atomic

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "depth.md"


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


def page(text: str) -> str:
    """The page with its tables as the records have them."""
    names = ("depth", "memory", "roads", "gpu_depth")
    records = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    parts = {
        "depth": depth(records["depth"]),
        "targets": targets(records["depth"]),
        "memory": memory(records["memory"]),
        "roads": roads(records["roads"]),
        "gpu": gpu(records["gpu_depth"]),
    }
    for name, made in parts.items():
        begin, end = f"<!-- {name}, from the record -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{made}\n\n{end}{rest.split(end)[1]}"
    return text


if __name__ == "__main__":
    write_atomic(PAGE, page(PAGE.read_text(encoding="utf-8")))

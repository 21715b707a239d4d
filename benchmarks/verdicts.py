"""What `judge` may say of a model before training, and what training then did: the set from which it was made.

Each model is measured at initialisation (all numbers that a verdict may use) and then trained, its stack alone, on two
tasks: the token map, which each token solves by itself, and the previous token, which needs attention. 60 steps of
AdamW on 128 tokens each; three rates, the largest first, of which the best counts. A model's *learned share* of a task
is 1 - loss/chance, the loss the mean of the last five steps. A run ends as soon as that is what its task asks, and with
it the task: no more is wanted of the number. Decided before the first model was judged:

    trains    at least half of the token map and a quarter of the previous token,
    does not  less than a tenth of both,
    partly    all others.

    python benchmarks/verdicts.py                    # all that is missing
    python benchmarks/verdicts.py --only keel mhc    # measure these again: names, rules, or the first letters of names
    python benchmarks/verdicts.py --table            # write the tables of docs/verdicts.md from the record

Writes results/verdicts_*.json after every model, so that what was interrupted continues; a row that was deleted is
measured again.
"""

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from math import isfinite, isnan, log, nan
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from verdict_models import SEED, SHAPE, VOCABULARY, Case, built, cases, tasks_of

from deepnet_edu import Batch, TrainConfig, probe, train
from deepnet_edu.files import write_atomic
from deepnet_edu.model import Model
from deepnet_edu.probing import model_update
from deepnet_edu.profiles import DepthProfile, History
from deepnet_edu.residual import RESIDUALS, sublayer_kinds
from deepnet_edu.training import TrainingDiverged
from deepnet_edu.verdict import MAX_UPDATE, MAX_VARIANCE, NEARLY_ALIKE, STILL_INPUT

RESULTS = Path(__file__).parent / "results"
STEPS, WARMUP = 60, 10
RATES = (3e-3, 1e-3, 3e-4)
#: The learned share that each task asks of a model that trains, and the one below which nothing was learned.
ENOUGH = {"token_map": 0.5, "previous_token": 0.25}
NOTHING = 0.1

PAGE = RESULTS.parents[1] / "docs" / "verdicts.md"
#: The thresholds whose place the record shows.
THRESHOLDS = {"similarity": NEARLY_ALIKE, "variance": MAX_VARIANCE, "update": MAX_UPDATE}
LATER = "after three steps"
OUTCOMES = ("trains", "partly", "does not")
WORDS = ("PASS", "UNSURE", "FAIL", "refused")
PARTS = ("rules", "changed", "deep", "untrained")


# --- what is measured


def measure(case: Case) -> dict[str, Any]:
    """Everything at initialisation that a verdict may use."""
    model = built(case)
    batch = tasks_of(case)["token_map"].batch(torch.Generator().manual_seed(1000 + SEED))
    if case.batch is not None:
        batch = case.batch(batch)
    try:
        profile = probe(model, batch)
    except ValueError as error:
        return {"refused": str(error)}
    found = {"profile": _plain(profile.to_dict()), "updates": _updates(model, batch)}
    gradient = profile.gradient_norm
    if gradient is not None and (gradient == 0).any() and case.trained:
        # What a rule that starts at 0 looks like after a few steps.
        _train(model, case, "token_map", 1e-3, steps=3)
        found[LATER] = {
            "profile": _plain(probe(model, batch).to_dict()),
            "updates": _updates(model, batch),
        }
    return found


def _updates(model: Model, batch: Batch) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for step, rate in (("sgd", 1e-3), ("sign", 1e-5)):
        for group in ("matrices", "norms"):
            try:
                value = model_update(model, batch, step, group, rate)  # type: ignore[arg-type]
            except ValueError:  # a rule without such parameters
                continue
            found[f"{step} {group}"] = float(f"{value:.4g}") if isfinite(value) else None
    return found


def _plain(profile: dict[str, Any]) -> dict[str, Any]:
    """Where a value was taken follows from the shape, and is not kept; four digits of what is."""
    kept = ("variance", "token_similarity", "input_share", "gradient_norm", "input_similarity")
    return {name: profile[name] for name in kept if name in profile}


class _EnoughError(Exception):
    """The run has reached what its task asks."""


def _train(model: Model, case: Case, task: str, rate: float, steps: int = STEPS) -> float:
    """The mean loss of the last five steps; NaN where the run broke."""
    settings = TrainConfig(steps=steps, learning_rate=rate, warmup=WARMUP, parameters=case.parameters, seed=SEED)  # type: ignore[arg-type]
    enough = (1 - ENOUGH[task]) * tasks_of(case)[task].chance
    loss: list[float] = []

    def on_step(history: History) -> None:
        loss.append(history.loss[-1])
        if len(loss) >= WARMUP and sum(loss[-5:]) / 5 <= enough:
            raise _EnoughError

    try:
        train(model, tasks_of(case)[task], settings, progress=False, on_step=on_step)
    except _EnoughError:
        pass
    except (TrainingDiverged, ValueError) as error:
        print("   ", rate, str(error)[:90], flush=True)
        return float("nan")
    return sum(loss[-5:]) / 5


def learned(case: Case, task: str) -> dict[str, Any]:
    """The loss of each rate that was tried, mean of the last five steps, and the best one's share learned."""
    losses: dict[str, float | None] = {}
    chance = tasks_of(case)[task].chance
    best = 0.0
    for rate in RATES:
        mean = _train(built(case), case, task, rate)
        losses[f"{rate:g}"] = round(mean, 4) if isfinite(mean) else None
        best = max(best, 1 - mean / chance) if isfinite(mean) else best
        if best >= ENOUGH[task]:
            break
    return {"loss": losses, "learned": round(best, 4)}


def outcome(row: dict[str, Any]) -> str | None:
    """``"trains"``, ``"partly"`` or ``"does not"``; None where it was not tried."""
    shares = {task: row["training"][task]["learned"] for task in row.get("training", {})}
    if not shares:
        return None
    if all(share >= ENOUGH[task] for task, share in shares.items()):
        return "trains"
    return "does not" if all(share < NOTHING for share in shares.values()) else "partly"


# --- the record


def part(case: Case) -> str:
    """Which file of the record holds it."""
    if not case.trained:
        return "untrained"
    if max(case.config.decoder_layers, case.config.encoder_layers) > 48:
        return "deep"
    return "changed" if case.name.count("-") > 1 else "rules"


def _file(case: Case) -> Path:
    return RESULTS / f"verdicts_{part(case)}.json"


def read() -> dict[str, dict[str, Any]]:
    """All rows by name, in the order of the set; those that are no longer in it are left out."""
    rows = {}
    for file in sorted(RESULTS.glob("verdicts_*.json")):
        rows.update({row["name"]: row for row in json.loads(file.read_text(encoding="utf-8"))["models"]})
    return {case.name: rows[case.name] for case in cases() if case.name in rows}


def _keep(rows: dict[str, dict[str, Any]], case: Case) -> None:
    file = _file(case)
    inside = [rows[one.name] for one in cases() if one.name in rows and _file(one) == file]
    head = {
        "what": "Models at initialisation, and what 60 steps of training their stacks did",
        "command": "python benchmarks/verdicts.py",
        "device": "CPU, one thread",
        "seed": SEED,
        "shape": SHAPE,
        "steps": STEPS,
        "rates": RATES,
        "chance": round(log(VOCABULARY), 4),
    }
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in inside)
    write_atomic(file, json.dumps(head, indent=1).removesuffix("\n}") + f',\n "models": [\n{lines}\n]\n}}\n')


# --- what judge says of them


def profile_of(case: Case, kept: dict[str, Any]) -> DepthProfile:
    """The measured profile of a row, with the places that follow from the shape."""
    shape = case.config
    where = [
        (stack, layer, kind)
        for stack, layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers))
        for layer in range(layers)
        for kind in sublayer_kinds(stack, shape.encoder_layers)  # type: ignore[arg-type]
    ]
    stack, layer, sublayer = (list(part) for part in zip(*where, strict=True))
    return DepthProfile.from_dict({"label": case.name, "stack": stack, "layer": layer, "sublayer": sublayer, **kept})


def said(case: Case, row: dict[str, Any], when: str = "profile", with_update: bool = True) -> str:
    """``"PASS"``, ``"FAIL"``, ``"UNSURE"`` or ``"refused"``; ``when``: at the start, or ``"after three steps"``."""
    if "refused" in row:
        return "refused"
    kept = row if when == "profile" else row[when]
    update = kept["updates"].get("sgd matrices", 0.0) if with_update else None
    return profile_of(case, kept["profile"]).judge(float("nan") if with_update and update is None else update).word


def halves(rows: dict[str, dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The names on which thresholds were set, and those that they are judged on, by a hash of the name."""
    chosen, judged = [], []
    for name, row in rows.items():
        if row.get("outcome"):
            (judged if sha256(name.encode()).digest()[0] % 2 else chosen).append(name)
    return chosen, judged


def bounds(names: list[str], rows: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Between which values each threshold may lie: the most that a model has that trains, and the least that one has
    that does not, of those that no other criterion speaks of."""
    by_name = {case.name: case for case in cases()}
    found: dict[str, tuple[list[float], list[float]]] = {
        what: ([], []) for what in ("similarity", "variance", "update")
    }
    for name in names:
        row = rows[name]
        if "profile" not in row or row["outcome"] == "partly" or by_name[name].batch is not None:
            continue
        profile = profile_of(by_name[name], row["profile"])
        assert profile.token_similarity is not None
        assert profile.input_share is not None
        assert profile.variance is not None
        top, share, variance = profile.token_similarity[-1], profile.input_share[-1], profile.variance.min()
        update = row["updates"].get("sgd matrices")
        values = {"similarity": top, "variance": variance if share > STILL_INPUT else None, "update": update}
        trains = row["outcome"] == "trains"
        speaks = [what for what, value in values.items() if value is not None and value > THRESHOLDS[what]]
        for what, value in values.items():
            if value is not None and isfinite(value) and (trains or speaks == [what]):
                found[what][0 if trains else 1].append(value)
    return {what: (max(low, default=nan), min(high, default=nan)) for what, (low, high) in found.items()}


def confusion(names: list[str], rows: dict[str, dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """The names by what training did and what was said."""
    by_name = {case.name: case for case in cases()}
    found: dict[tuple[str, str], list[str]] = {(kind, word): [] for kind in OUTCOMES for word in WORDS}
    for name in names:
        found[rows[name]["outcome"], said(by_name[name], rows[name])].append(name)
    return found


def held(rows: dict[str, dict[str, Any]]) -> str:
    """What the record holds, in a sentence."""
    rules = {case.config.residual for case in cases() if case.name in rows}
    missing = [name for name in RESIDUALS if name not in rules]
    besides = f", all but {', '.join(missing)}" if missing else ", all that there are"
    trained = sum("training" in row for row in rows.values())
    return f"The record holds {len(rows)} models of {len(rules)} residual rules{besides}; {trained} were trained."


def tables(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The tables of docs/verdicts.md, by name."""
    chosen, judged = halves(rows)
    by_name = {case.name: case for case in cases()}
    head = "| training | half | " + " | ".join(WORDS) + " |\n| --- | --- |" + " --- |" * len(WORDS)
    lines, wrong = [head], ["| model | said | training | token map | previous token |\n| --- | --- | --- | --- | --- |"]
    for kind in OUTCOMES:
        for half, names in (("set on", chosen), ("judged on", judged)):
            found = confusion(names, rows)
            lines.append(f"| {kind} | {half} | " + " | ".join(str(len(found[kind, word])) for word in WORDS) + " |")
            errors = ("FAIL",) if kind == "trains" else ("PASS",)
            for name in (name for word in errors for name in found[kind, word]):
                shares = {task: f"{one['learned']:.0%}" for task, one in rows[name]["training"].items()}
                wrong.append(
                    f"| {name} ({half}) | {errors[0]} | {kind} | {shares.get('token_map', '')} | "
                    f"{shares.get('previous_token', '')} |"
                )
    updates = ["| training | SGD: least | median | most | Adam's size: least | median | most |\n|" + " --- |" * 7]
    for kind in OUTCOMES:
        cells = []
        for step in ("sgd matrices", "sign matrices"):
            found = [row.get("updates", {}).get(step) for row in rows.values() if row.get("outcome") == kind]
            values = sorted(value for value in found if value is not None)
            cells += [f"{value:.2g}" for value in (values[0], values[len(values) // 2], values[-1])]
        updates.append(f"| {kind} | " + " | ".join(cells) + " |")
    later = [
        f"| {name} | {said(by_name[name], row)} | {said(by_name[name], row, LATER)} | {row['outcome']} |"
        for name, row in rows.items()
        if LATER in row
    ]
    after = "\n".join(["| model | at the start | after three steps | training |\n| --- | --- | --- | --- |", *later])
    limits = ["| threshold | is | half | most that trains | least that does not |\n| --- | --- | --- | --- | --- |"]
    for half, names in (("set on", chosen), ("judged on", judged)):
        for what, (low, high) in bounds(names, rows).items():
            limits.append(
                f"| {what} | {THRESHOLDS[what]:g} | {half} | {low:.3g} | {'' if isnan(high) else f'{high:.3g}'} |"
            )
    return {
        "set": held(rows),
        "bounds": "\n".join(limits),
        "confusion": "\n".join(lines),
        "errors": "\n".join(wrong),
        "updates": "\n".join(updates),
        "later": after,
    }


def page(text: str, rows: dict[str, dict[str, Any]]) -> str:
    """The page with the tables that the record gives."""
    for name, table in tables(rows).items():
        begin, end = f"<!-- {name}, from the record -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
    return text


def perform(case: Case) -> dict[str, Any]:
    """A row of the record."""
    begin = time.perf_counter()
    row: dict[str, Any] = {"name": case.name, **measure(case)}
    if case.trained:
        row["training"] = {task: learned(case, task) for task in tasks_of(case)}
        row["outcome"] = outcome(row)
    return {
        **row,
        "seconds": round(time.perf_counter() - begin, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "deepnet-edu": version("deepnet-edu"),
        },
    }


def main() -> None:
    """Measure what is missing, or again what --only names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="names, rules, or the first letters of names")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS, help="one file of the record")
    parser.add_argument("--table", action="store_true", help="write the tables of docs/verdicts.md, and stop")
    arguments = parser.parse_args()
    chosen = [case for case in cases() if part(case) in arguments.part]
    if arguments.only:
        chosen = [c for c in chosen if any(c.name == o or c.name.startswith(f"{o}-") for o in arguments.only)]
    if arguments.table:
        text = PAGE.read_text(encoding="utf-8")
        write_atomic(PAGE, page(text, read()))
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = read()
    todo = [case for case in chosen if arguments.only or case.name not in rows]
    print(f"{len(rows)} models are measured, {len(todo)} to go", flush=True)
    for case in todo:
        row = perform(case)
        rows = {**read(), case.name: row}  # another part may be under way
        _keep(rows, case)
        shares = {task: one["learned"] for task, one in row.get("training", {}).items()}
        print(case.name, row.get("outcome"), shares, f"{row['seconds']} s", row.get("refused", ""), flush=True)


if __name__ == "__main__":
    sys.exit(main())

"""Everything that is asked of one GPU, in the order of its worth, each part saved as soon as there is something.

Run with: python benchmarks/gpu_depth.py --all --minutes 9. Called again on the same device with the same versions it
does what is missing. Writes results/gpu_ladder.json, whose predictions were written before anything was measured.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed will do

from benchmarks import gpu_ladder
from benchmarks.depth import spread, versions
from benchmarks.gpu_cases import (
    CASES,
    LEARNING_RATE,
    SEED,
    Case,
    contend_together,
    machine,
    model_flops,
    profile,
    smoke,
)
from benchmarks.gpu_depth import CACHES, FASTEST_WAY, SAID, WORST_WAY, driver, judge
from benchmarks.gpu_ladder import BASE, TOP
from deepnet_edu.files import write_atomic

RESULTS = Path(__file__).parent / "results" / "gpu_ladder.json"
ROUNDS = 3
#: Of the ladder's steps the one that is run at full depth.
BEST = "best of ours"
#: Fewest seconds in which a part is worth starting, and those that one may take.
LEAST, LIMIT = 15.0, {"machine": 60, "together": 200, "alone": 150, "profile": 60}
#: Bytes of the device that smoke runs imagine.
IMAGINED = 30_000_000


def tasks() -> list[dict[str, Any]]:
    """Parts, the most telling first; the later rounds at full depth come last, each contender once before any again."""
    everyone = [(case, who) for who in (BEST, "TorchScale", BASE) for case in "ba"]
    alone = [
        {"part": "alone", "case": case, "who": who, "round": n} for n in range(1, ROUNDS + 1) for case, who in everyone
    ]
    parts: list[dict[str, Any]] = [{"part": "machine"}, {"part": "together", "case": "b"}, alone[0]]
    parts += [{"part": "together", "case": "c"}, {"part": "profile", "case": "b"}, alone[1]]
    return [*parts, *alone[2:4], {"part": "together", "case": "a"}, {"part": "profile", "case": "a"}, *alone[4:]]


def best_of(record: dict[str, Any], case: str) -> str:
    """The step of the ladder that is run at full depth: once chosen it stays; the fastest measured, or else the
    highest."""
    chosen = record["parts"].get(f"{case}, alone, {BEST}, round 1", {}).get("who")
    ladder = record["cases"].get(case, {}).get("ladder", [])
    mine = [one for one in ladder if is_ours(one) and "seconds a step" in one]
    return str(chosen or min(mine, key=_median, default={"contender": TOP})["contender"])


def key_of(task: dict[str, Any]) -> str:
    """``"b, alone, TorchScale, round 1"``"""
    told = [task.get("case"), task["part"], task.get("who"), f"round {task['round']}" if "round" in task else None]
    return ", ".join(one for one in told if one)


def work(task: dict[str, Any]) -> None:
    """In a process of its own: do a part, and write what there is to ``task["save"]`` as it comes."""
    import torch

    small = task["smoke"]
    device = "cpu" if small else "cuda"
    memory = IMAGINED if small else torch.cuda.get_device_properties(0).total_memory
    if small:
        torch.set_num_threads(1)

    def save(found: Any) -> None:
        write_atomic(Path(task["save"]), json.dumps(found))

    if task["part"] == "machine":
        save(machine(device, (64, 128), 2**16) if small else machine(device))
        return
    if task["part"] == "together":
        gpu_ladder.together(task["case"], ROUNDS, device, memory, save, small)
        return
    case: Case = smoke(CASES[task["case"]]) if small else CASES[task["case"]]
    if task["part"] == "profile":
        full, case = case, gpu_ladder.rungs(task["case"], small)
        settings = gpu_ladder.on_device(gpu_ladder.settings_of(TOP), device)
        settings = gpu_ladder.scaled(full, case, settings, memory)
        kernels, least = profile(case, settings, device), gpu_ladder.least_work(case, settings)
        save({"settings": settings, "kernels": kernels, "least": least})
        return
    asked: dict[str, Any] = {task["who"]: None}
    if not task["who"].startswith(("TorchScale", "torch.nn")):
        settings = gpu_ladder.settings_of(task["who"])
        asked = {task["who"]: gpu_ladder.on_device(gpu_ladder.resolved(case, settings, memory), device)}
    contend_together(case, asked, 1, device, save)


def measure(task: dict[str, Any], limit: float, caches: str) -> dict[str, Any]:
    """A part's result, as far as it came within ``limit`` seconds; ``missing`` says why there is nothing or not all."""
    environment = {**os.environ, **{name: str(Path(caches) / name) for name in CACHES}}
    save = Path(caches) / "part.json"
    save.unlink(missing_ok=True)
    command = [sys.executable, __file__, json.dumps({**task, "save": str(save)})]
    begin, errors = time.monotonic(), ""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=limit)
        why = (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1][:300]
        why = why if process.returncode else ""
    except subprocess.TimeoutExpired:
        why = f"no result within {limit:.0f} s"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: compilers that it started end with it
            process.communicate()
    found = json.loads(save.read_text(encoding="utf-8")) if save.exists() else {}
    return {"found": found, "wall": round(time.monotonic() - begin, 1), **({"missing": why} if why else {})}


def row(who: str, one: dict[str, Any], case: Case, peak: float) -> dict[str, Any]:
    """A contender's medians over rounds, its model FLOPs and executed ones apart, and whether its loss fell."""
    if not one.get("rounds"):
        return {"contender": who, "missing": one.get("missing", "not run: the minutes were spent")}
    settings, seconds = one["settings"], [statistics.median(times) for times in one["rounds"]]
    median, losses = statistics.median(seconds), one["losses"]
    # Others compute all layers again between checkpoints.
    executed = gpu_ladder.executed_flops(case, {} if settings is None else settings)
    layers = case.config.encoder_layers + case.config.decoder_layers
    made = {
        "contender": who,
        "settings": settings,
        "rounds": len(seconds),
        "seconds a step": spread(seconds, 5),
        "ms a layer": round(1e3 * median / layers, 4),
        "model FLOPs utilisation": round(model_flops(case) / median / peak, 4),
        "executed FLOPs utilisation": round(executed / median / peak, 4),
        "first step, s": round(one["first step"], 2),
        "steps": len(losses),
        "loss of the first step": round(losses[0], 4),
        "loss of the last step": round(losses[-1], 4),
        "fell": losses[-1] < losses[0],
    }
    if "peak" in one:
        made |= {f"{name}, GB": round(one[name] / 1e9, 3) for name in ("peak", "reserved")}
        if settings is not None:
            formula = gpu_ladder.formula_bytes(case, settings)
            made |= {"formula, GB": round(formula / 1e9, 3), "peak over formula": round(one["peak"] / formula, 4)}
    return made


def merged(parts: dict[str, Any], case: str, small: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of a case: all contenders on the ladder, and those at full depth, whose rounds are parts of their own."""
    peak = parts["machine"]["found"]["peak"]
    on, full = gpu_ladder.rungs(case, small), smoke(CASES[case]) if small else CASES[case]
    ladder = parts.get(f"{case}, together", {}).get("found", {})
    rows = [row(who, ladder.get(who, {}), on, peak) for who in gpu_ladder.contenders(case)]
    alone: dict[str, dict[str, Any]] = {}
    for task in tasks():
        if task["part"] != "alone" or task["case"] != case:
            continue
        part = parts.get(key_of(task), {})
        who = part.get("who", task["who"])
        one = part.get("found", {}).get(who, {"missing": part.get("missing", "not run: the minutes were spent")})
        there = alone.setdefault(who, one)
        if there is not one and "rounds" in one:
            alone[who] = {**one, "rounds": [*there.get("rounds", []), *one["rounds"]]}
    return rows, [row(who, one, full, peak) for who, one in alone.items()]


def judged(parts: dict[str, Any], small: bool) -> dict[str, Any]:
    """Rows, rooflines, and goals, each against contenders that ran."""
    if "found" not in parts.get("machine", {}):
        return {}
    found: dict[str, Any] = {}
    peak, bandwidth = (parts["machine"]["found"][name] for name in ("peak", "bandwidth"))
    for case in "abc":
        on, full = merged(parts, case, small)
        mine = [one for one in (on if case == "c" else full) if is_ours(one)]
        best = min((one for one in mine if "seconds a step" in one), key=_median, default={})
        goals = []
        if case == "c":
            goals.append(judge(FASTEST_WAY, times_faster(parts, on, best), f"at least {gpu_ladder.GOAL_TIMES:g}", on))
        else:
            share, executed = (best.get(f"{kind} FLOPs utilisation") for kind in ("model", "executed"))
            aims = [("model FLOPs utilisation of the measured peak", share, gpu_ladder.GOALS[case])]
            aims += [("executed FLOPs utilisation", executed, gpu_ladder.GOAL_EXECUTED)] if case == "b" else []
            goals += [judge(what, value, f"at least {goal:g}", full) for what, value, goal in aims]
            offs = [abs(one["peak over formula"] - 1) for one in mine if "peak over formula" in one]
            goals.append(
                judge(WORST_WAY, round(max(offs), 4) if offs else None, f"at most {gpu_ladder.GOAL_MEMORY:g}", full)
            )
        found[case] = {"what": CASES[case].title, "ladder": on, "full depth": full, "goals": goals}
        seen = parts.get(f"{case}, profile", {}).get("found")
        if seen:
            least = {kind: tuple(both) for kind, both in seen["least"].items()}
            found[case]["roofline"] = gpu_ladder.roofline(seen["kernels"], least, peak, bandwidth)
            found[case]["kernels"] = [{**k, "ms": round(k["ms"], 4)} for k in seen["kernels"][:20]]
    return found


def is_ours(one: dict[str, Any]) -> bool:
    """By its name."""
    return str(one["contender"]).startswith("ours")


def _median(one: dict[str, Any]) -> float:
    return float(one["seconds a step"]["median"])


def times_faster(parts: dict[str, Any], rows: list[dict[str, Any]], best: dict[str, Any]) -> float | None:
    """The fastest of TorchScale's ways over the fastest of ours, the median of ratios within rounds."""
    theirs = [one for one in rows if one["contender"].startswith("TorchScale") and "seconds a step" in one]
    if not best or not theirs:
        return None
    found = parts["c, together"]["found"]
    peer = min(theirs, key=_median)["contender"]
    pairs = zip(found[peer]["rounds"], found[best["contender"]]["rounds"], strict=False)
    return round(statistics.median(statistics.median(a) / statistics.median(b) for a, b in pairs), 3)


def told(record: dict[str, Any]) -> str:
    """Rows and goals, a line each."""
    lines = []
    for name, case in record.get("cases", {}).items():
        lines.append(f"({name}) {case['what']}")
        for where in ("ladder", "full depth"):
            for one in case[where]:
                said = f"missing: {one.get('missing')}"
                if "missing" not in one:
                    said = f"{one['seconds a step']['median']:.4g} s a step, {one['ms a layer']:.3g} ms a layer, "
                    said += (
                        f"{one['model FLOPs utilisation']:.1%} of the peak ({one['executed FLOPs utilisation']:.1%} "
                    )
                    said += f"executed), loss {one['loss of the first step']:g} to {one['loss of the last step']:g}"
                lines.append(f"    {where}: {one['contender']}: {said}")
        lines += [
            f"    roofline: {r['kind']}: {r['ms']} ms, least {r['least ms']} ms" for r in case.get("roofline", ())
        ]
        for one in case["goals"]:
            left = f"; not run: {', '.join(one['not run'])}" if "not run" in one else ""
            lines.append(f"  {SAID[one['met']]}: {one['what']}: {one['measured']}, goal {one['goal']}{left}")
    return "\n".join(lines)


def started(out: Path | None, small: bool) -> dict[str, Any]:
    """The record that there is where it was made on such a device by such versions, or a new one."""
    import torch

    device = "CPU, smoke" if small else torch.cuda.get_device_name()
    record: dict[str, Any] = {
        "what": "The ladder of levers at 1,000 layers on one GPU: forward, backward and AdamW, bfloat16 by autocast",
        "command": "python benchmarks/gpu_depth.py --all --minutes 9",
        "date": datetime.now(UTC).date().isoformat(),
        "device": device,
        "driver": driver(),
        "versions": {**versions(), "cuda": torch.version.cuda},
        "seed": SEED,
        "learning rate": LEARNING_RATE,
        "predictions": gpu_ladder.predictions(),
        "parts": {},
        "cases": {},
    }
    if out is not None and out.exists():
        there = json.loads(out.read_text(encoding="utf-8"))
        record["predictions"] = there["predictions"]  # as they were written before
        if all(there.get(name) == record[name] for name in ("device", "driver", "versions")):
            record["parts"] = there["parts"]
    return record


def run(out: Path | None, minutes: float, small: bool) -> dict[str, Any]:
    """Do the parts that are missing until the minutes are spent, judge after each, print and keep."""
    import torch

    if not small and not torch.cuda.is_available():
        sys.exit("There is no CUDA device here: run this on a machine with one, or try the script with --smoke.")
    out = out or (None if small else RESULTS)
    end, record = time.monotonic() + 60 * minutes, started(out, small)
    with tempfile.TemporaryDirectory() as caches:
        for task in tasks():
            key = key_of(task)
            there = record["parts"].get(key)
            limit = min(LIMIT[task["part"]], end - time.monotonic() - 5)
            if (there is not None and "missing" not in there) or limit < LEAST:
                continue
            who = best_of(record, task["case"]) if task.get("who") == BEST else task.get("who")
            made = measure({**task, "who": who, "smoke": small}, limit, caches)
            record["parts"][key] = {**made, **({"who": who} if who else {})}
            record["cases"] = judged(record["parts"], small)
            print(f"{key}: {record['parts'][key]['wall']} s {record['parts'][key].get('missing', '')}", flush=True)
            if out is not None:
                write_atomic(out, json.dumps(record, indent=1) + "\n")
    print(told(record), flush=True)
    return record


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))

"""What a thousand layers cost on one GPU: our training step, TorchScale's and torch.nn's, against the measured peak.

Each contender runs in a process of its own, since two of these models do not fit beside each other. The first round has
all of them; those after it have the fastest of ours and the others that ran to the end, in turn, and ratios are taken
within a round. Nothing is downloaded. Writes results/gpu_depth.json; cases that were not run stay there as they were.

Run with: python benchmarks/gpu_depth.py --minutes 30, or one case a call: --only a --minutes 9 (benchmarks/README.md)
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone that is not installed will do

from benchmarks.depth import spread, versions

RESULTS = Path(__file__).parent / "results" / "gpu_depth.json"
ROUNDS, MINUTES = 3, 9.0
#: Seconds that one process may take, and the fewest in which one is worth starting.
LIMIT, LEAST = 150.0, 20.0
#: Where the goals were set.
GOAL_DEVICE = "H200"
#: Goals over all ways of a contender, and how their names begin.
FASTEST_WAY = "times TorchScale's steps a second, its fastest way"
WORST_WAY = "peak memory off the formula, share, the worst of our ways"
OVER_ALL = {FASTEST_WAY: "TorchScale", WORST_WAY: "ours"}
#: How the reason begins where a contender could not show anything.
NOT_RUN = ("not run", "no result within", "ImportError")
SAID = {True: "reached", False: "missed", None: "not measured"}
#: Where compilers keep what they made: in a folder of each contender's own, so that its first turn starts cold.
CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


def work(task: dict[str, Any]) -> dict[str, Any]:
    """In a process of its own: what a contender, or the device itself, was measured to do; or why not."""
    import torch

    from benchmarks import gpu_cases

    device = "cpu" if task["smoke"] else "cuda"
    if task["smoke"]:
        torch.set_num_threads(1)
    if task["contender"] is None:
        return gpu_cases.machine(device, (64, 128), 2**16) if task["smoke"] else gpu_cases.machine(device)
    case = gpu_cases.CASES[task["case"]]
    try:
        return gpu_cases.contend(gpu_cases.smoke(case) if task["smoke"] else case, task["contender"], device)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        return {"missing": f"{type(error).__name__}: {lines[0][:300]}"}


def measure(task: dict[str, Any], limit: float, caches: str) -> dict[str, Any]:
    """One process with its children; ``missing`` says why there is nothing, ``wall`` how long it took."""
    environment = {**os.environ, **{name: str(Path(caches) / name) for name in CACHES}}
    command = [sys.executable, __file__, "--worker", json.dumps(task)]
    begin = time.monotonic()
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        output, errors = process.communicate(timeout=limit)
        if process.returncode:
            last = (errors.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
            found: dict[str, Any] = {"missing": last[:300]}
        else:
            found = json.loads(output.splitlines()[-1])
    except subprocess.TimeoutExpired:
        found = {"missing": f"no result within {limit:.0f} s"}
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its own session: compilers that it started end with it
            process.communicate()
    return {**found, "wall": time.monotonic() - begin}


def rounds_of(name: str, contenders: list[str], rounds: int, end: float, smoke: bool, caches: str) -> dict[str, Any]:
    """Whatever the contenders of a case did until ``end``, a list each."""
    found: dict[str, list[dict[str, Any]]] = {contender: [] for contender in contenders}
    turn = list(contenders)
    for number in range(rounds):
        if number and wall(found, turn) > end - time.monotonic():
            break
        for contender in turn:
            limit = min(LIMIT, end - time.monotonic())  # a first round with everyone is worth more than a second
            if limit < LEAST:
                found[contender].append({"missing": "not run: the minutes were spent", "wall": 0.0})
                continue
            task, own = {"case": name, "contender": contender, "smoke": smoke}, str(contenders.index(contender))
            found[contender].append(measure(task, limit, str(Path(caches) / name / own)))
            print(f"{name}, round {number + 1}: {contender}: {found[contender][-1]}", file=sys.stderr, flush=True)
        turn = those_that_go_on(found)
        if not turn:
            break
    return found


def those_that_go_on(found: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The fastest of ours, and the others that ran to the end every time so far."""
    ran = [contender for contender, many in found.items() if many and "missing" not in many[-1]]
    best = fastest(found, [contender for contender in ran if is_ours(contender)])
    return [contender for contender in ran if not is_ours(contender) or contender == best]


def wall(found: dict[str, list[dict[str, Any]]], contenders: list[str]) -> float:
    """Seconds that the last turns of these took."""
    return sum(found[contender][-1]["wall"] for contender in contenders)


def is_ours(contender: str) -> bool:
    """By its name."""
    return contender.startswith("ours")


def fastest(found: dict[str, Any], among: list[str]) -> str | None:
    """Of the first round; None of none."""
    ran = {name: statistics.median(found[name][0]["seconds"]) for name in among if "seconds" in found[name][0]}
    return min(ran, key=ran.__getitem__) if ran else None


def row(contender: str, found: list[dict[str, Any]], flops: int, tokens: int, peak: float) -> dict[str, Any]:
    """Medians over rounds; ``missing`` where the first had nothing."""
    ran = [one for one in found if "missing" not in one]
    if not ran:
        return {"contender": contender, "missing": found[0]["missing"]}
    seconds = [statistics.median(one["seconds"]) for one in ran]
    median = statistics.median(seconds)
    made: dict[str, Any] = {
        "contender": contender,
        "rounds": len(ran),
        "seconds a step": spread(seconds, 5),
        "steps a second": round(1 / median, 3),
        "tokens a second": round(tokens / median),
        "model FLOPs utilisation": round(flops / median / peak, 4),
        "build, s": round(ran[0]["build"], 2),
        "first step, s": round(ran[0]["first step"], 2),
        "loss": round(ran[0]["loss"], 4),
    }
    if "peak" in ran[0]:
        made |= {f"{name}, GB": round(max(one[name] for one in ran) / 1e9, 3) for name in ("peak", "reserved")}
    return made


def ratio(found: dict[str, Any], slow: str | None, quick: str | None) -> float | None:
    """How many times slower, median over the rounds that both were in."""
    if slow is None or quick is None:
        return None
    pairs = zip(found.get(slow, []), found[quick], strict=False)
    ratios = [
        statistics.median(a["seconds"]) / statistics.median(b["seconds"])
        for a, b in pairs
        if "seconds" in a and "seconds" in b
    ]
    return round(statistics.median(ratios), 3) if ratios else None


def goals(name: str, found: dict[str, Any], rows: list[dict[str, Any]], formula: int) -> list[dict[str, Any]]:
    """What was aimed at in this case, and what came of it, by the fastest of ours.

    TorchScale counts twice: as it is, and its fastest way, compiled or not. Memory counts in each of our ways.
    """
    best = fastest(found, [contender for contender in found if is_ours(contender)])
    own: dict[str, Any] = next((one for one in rows if one["contender"] == best), {})
    peer = fastest(found, [contender for contender in found if contender.startswith("TorchScale")])
    times = 15 if name == "c" else 2
    checks: list[tuple[str, float | None, str, float]] = []
    if name != "c":
        share = own.get("model FLOPs utilisation")
        checks.append(("model FLOPs utilisation of the measured peak", share, "at least", 0.4))
    checks += [
        ("times TorchScale's steps a second, eager", ratio(found, "TorchScale", best), "at least", times),
        (FASTEST_WAY, ratio(found, peer, best), "at least", times),
        ("first step, s", own.get("first step, s"), "at most", 90),
    ]
    peaks = [one["peak, GB"] * 1e9 / formula - 1 for one in rows if is_ours(one["contender"]) and "peak, GB" in one]
    off = round(max(map(abs, peaks)), 4) if peaks else None
    checks.append((WORST_WAY, off, "at most", 0.1))
    return [judge(what, value, f"{side} {limit:g}", rows) for what, value, side, limit in checks]


def judge(what: str, value: float | None, goal: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether a goal was met: not known, where a way that was not run could still change the answer.

    The more ways there are, the smaller is the lead over the fastest of them, and the larger the worst of them: so such
    a goal can be missed before all have run, and met only after.
    """
    side, _, number = goal.rpartition(" ")
    met = None if value is None else value >= float(number) if side == "at least" else value <= float(number)
    made = {"what": what, "measured": value, "goal": goal, "met": met}
    if met and (left := not_run(rows, OVER_ALL.get(what, "no contender"))):
        made |= {"met": None, "not run": left}
    return made


def not_run(rows: list[dict[str, Any]], of: str) -> list[str]:
    """Contenders whose name begins so of which nothing is known: who failed for a reason of its own did run."""
    missing = {one["contender"]: one["missing"] for one in rows if "missing" in one}
    return [name for name, why in missing.items() if name.startswith(of) and why.startswith(NOT_RUN)]


def rejudged(record: dict[str, Any]) -> dict[str, Any]:
    """The same record, its goals judged again by what it says was measured."""
    for case in record["cases"].values():
        case["goals"] = [judge(one["what"], one["measured"], one["goal"], case["rows"]) for one in case["goals"]]
    return record


def judged(name: str, found: dict[str, Any], machine: dict[str, Any], smoke: bool) -> dict[str, Any]:
    """A case of the record: its shape, its device, a row per contender, its goals."""
    import torch

    from benchmarks import gpu_cases
    from deepnet_edu import __version__

    case = gpu_cases.smoke(gpu_cases.CASES[name]) if smoke else gpu_cases.CASES[name]
    flops, formula = gpu_cases.model_flops(case), gpu_cases.formula_bytes(case)
    rows = [row(who, many, flops, case.read, machine["peak"]) for who, many in found.items()]
    for one in rows:
        if is_ours(one["contender"]) and "peak, GB" in one:
            one["peak over formula"] = round(one["peak, GB"] * 1e9 / formula, 4)
    return {
        "what": case.title,
        "date": datetime.now(UTC).date().isoformat(),
        "device": machine.get("device", "CPU"),
        "driver": driver(),
        "versions": {**versions(), "deepnet-edu": __version__, "cuda": torch.version.cuda},
        "measured peak, TFLOP/s": round(machine["peak"] / 1e12, 3),
        "products, TFLOP/s by side": {side: round(rate / 1e12, 3) for side, rate in machine["products"].items()},
        "copy, GB/s read and written": round(machine["bandwidth"] / 1e9, 1),
        "config": asdict(case.config),
        "sequences": case.sequences,
        "tokens": case.tokens,
        "layers between checkpoints": case.checkpoint_every,
        "precision": "bf16",
        "seed": gpu_cases.SEED,
        "model FLOPs a step": flops,
        "formula, GB": round(formula / 1e9, 3),
        "steps a round": case.steps,
        "rows": rows,
        "goals": goals(name, found, rows, formula),
    }


def driver() -> str:
    """Of the GPU, as nvidia-smi says it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def report(name: str, case: dict[str, Any]) -> str:
    """Rows and goals of a case, a line each."""
    lines = [f"({name}) {case['what']}. {case['device']}, peak {case['measured peak, TFLOP/s']} TFLOP/s"]
    lines += [f"    {one['contender']}: {told(one)}" for one in case["rows"]]
    elsewhere = "" if GOAL_DEVICE in case["device"] else f" (a goal for an {GOAL_DEVICE}; this is {case['device']})"
    for one in case["goals"]:
        left = f"; not run: {', '.join(one['not run'])}" if "not run" in one else ""
        lines.append(f"  {SAID[one['met']]}: {one['what']}: {one['measured']}, goal {one['goal']}{left}{elsewhere}")
    return "\n".join(lines)


def told(one: dict[str, Any]) -> str:
    """A row in words."""
    if "missing" in one:
        return f"missing: {one['missing']}"
    said = f"{one['seconds a step']['median']:.4g} s a step, {one['tokens a second']:,} tokens a second"
    said += f", {one['model FLOPs utilisation']:.1%} of the peak, first step {one['first step, s']:g} s"
    if "peak, GB" in one:
        said += f", {one['peak, GB']:g} GB"
    if "peak over formula" in one:
        said += f", {one['peak over formula']:.3f} of the formula"
    return said + f", rounds {one['rounds']}"


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(description="What a thousand layers cost on one GPU, against its measured peak.")
    parser.add_argument("--only", default="a,b,c", help="cases, for example a or b,c; all by default")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"{ROUNDS} by default, fewer where time is short")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for everything; {MINUTES:g} by default")
    parser.add_argument("--out", type=Path, help=f"the record; {RESULTS.name} in results by default")
    parser.add_argument("--all", action="store_true", help="the ladder, profiles and full depth: gpu_all.py")
    parser.add_argument("--judge", action="store_true", help="measure nothing: judge the goals of the record again")
    parser.add_argument("--smoke", action="store_true", help="tiny shapes on a CPU; kept only with --out")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    found = parser.parse_args(arguments)
    found.cases = found.only.split(",")
    if not set(found.cases) <= set("abc"):
        parser.error(f"--only {found.only}: expected cases of a, b and c, for example --only a,c")
    if found.rounds < 1 or not found.minutes > 0:
        parser.error("--rounds and --minutes: expected 1 or more, and more than 0.")
    return found


def main() -> None:
    """Measure, judge, print, keep."""
    arguments = parsed()
    if arguments.worker:
        print(json.dumps(work(json.loads(arguments.worker))))
        return
    if arguments.all:
        from benchmarks import gpu_all

        gpu_all.run(arguments.out, arguments.minutes, arguments.smoke)
        return
    if arguments.judge:
        from deepnet_edu.files import write_atomic

        out = arguments.out or RESULTS
        record = rejudged(json.loads(out.read_text(encoding="utf-8")))
        write_atomic(out, json.dumps(record, indent=1) + "\n")
        for name, case in record["cases"].items():
            print(report(name, case))
        return
    import torch

    if not arguments.smoke and not torch.cuda.is_available():
        sys.exit("There is no CUDA device here: run this on a machine with one, or try the script with --smoke.")
    from benchmarks.gpu_cases import CONTENDERS
    from deepnet_edu.files import write_atomic

    out = arguments.out or (None if arguments.smoke else RESULTS)
    end = time.monotonic() + 60 * arguments.minutes
    record: dict[str, Any] = {
        "what": "A training step at 1,000 layers on one GPU: forward, backward and AdamW, bfloat16 by autocast",
        "command": "python benchmarks/gpu_depth.py",
        "goals for": GOAL_DEVICE,
        "cases": {},
    }
    if out is not None and out.exists():
        record["cases"] = json.loads(out.read_text(encoding="utf-8"))["cases"]
    with tempfile.TemporaryDirectory() as caches:
        machine = measure({"case": None, "contender": None, "smoke": arguments.smoke}, LIMIT, caches)
        if "missing" in machine:
            sys.exit(f"The device itself could not be measured: {machine['missing']}.")
        for number, name in enumerate(arguments.cases):
            now = time.monotonic()
            until = now + (end - now) / (len(arguments.cases) - number)
            found = rounds_of(name, list(CONTENDERS), arguments.rounds, until, arguments.smoke, caches)
            record["cases"][name] = judged(name, found, machine, arguments.smoke)
            print(report(name, record["cases"][name]), flush=True)
            if out is not None:
                record["cases"] = dict(sorted(record["cases"].items()))
                write_atomic(out, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

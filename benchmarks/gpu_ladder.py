"""What each lever is worth on one GPU: our layers step by step up a ladder, other libraries' beside them, and profiles.

The levers, what is predicted of each, and what is asked of a device, as data: benchmarks/gpu_depth.py --all runs it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.gpu_cases import CASES, Case, contend_together, model_flops, smoke
from deepnet_edu.planning import count_operations, fewest_recomputed, training_memory
from deepnet_edu.planning.flops import layer_operations

#: What was measured on an H200 before any lever, results/gpu_depth.json: milliseconds a layer of the step.
MEASURED = {"a": 1.851, "b": 2.936}


@dataclass(frozen=True)
class Lever:
    """One step up the ladder.

    Attributes:
        name: of the contender that has this lever and all before it that are not beside the ladder.
        settings: of TrainConfig, that it adds.
        gain: predicted, milliseconds a layer in case (b), before anyone measured it; negative where it costs time.
        why: where the prediction comes from.
        beside: whether it is a choice of kernels, which the steps after it do not have.
    """

    name: str
    settings: dict[str, Any]
    gain: float
    why: str
    beside: bool = False


#: What the lowest step must be told to be as it was measured.
OFF = {"stream": "float32", "norm_kernel": "no"}
LADDER = (
    Lever("ours, compiled, graph", {"compile": "layer", "cuda_graph": True, **OFF}, 0.0, "measured: 2.94 ms"),
    Lever(
        "ours + one norm kernel", {"norm_kernel": "yes"}, 0.05,
        "with the float32 stream about 12 µs a norm less to move, two norms a layer, forward and backward; inductor "
        "fuses most already, and cannot look inside: it may be slower",
    ),
    Lever(
        "ours + attention kept", {"keep_attention": True}, 0.07,
        "its forward pass, about a fifth of attention's 0.35 ms a layer, is taken once and not twice",
    ),
    Lever(
        "ours + fewer layers again", {"recompute": "auto"}, 0.05,
        "the formula's count for 141 GB beside kept attention: 56 of 1,000 layers, at 0.73 ms of recomputation each",
    ),
    Lever(
        "ours + fewer layers, attention again", {"recompute": "auto", "keep_attention": False}, -0.04,
        "the same bytes keep 110 whole layers of (b) instead, 0.08 ms for the 0.12 of both; in (a), where attention is "
        "short, the count says that this is the better way",
        beside=True,
    ),
    Lever(
        "ours + cuDNN attention", {"attention": "cudnn"}, 0.12, "an estimate for heads of 64; it may be slower",
        beside=True,
    ),
    Lever(
        "ours + tuned products", {"autotune": True}, 0.15,
        "bias and GELU in the product's epilogue: one write and one read of 4d numbers less; only if Triton's products "
        "are as fast as cuBLAS's",
        beside=True,
    ),
    Lever(
        "time alone: half stream", {"stream": "half"}, 0.20,
        "each pass over the stream reads and writes two bytes a number where it had four: an estimate. At this depth "
        "DeepNorm does not learn so (results/stream.json), so it is not one of ours, and reaches no goal",
        beside=True,
    ),
    Lever("ours + both", {"attention": "cudnn", "autotune": True}, 0.27, "the sum of the two", beside=True),
)  # fmt: skip
#: The ladder's highest step but for choices of kernels, and its lowest.
TOP, BASE = "ours + fewer layers again", "ours, compiled, graph"
OTHERS = ("TorchScale", "TorchScale, layers compiled", "torch.nn, layers compiled", "torch.nn")
#: Layers of a stack's share on the ladder, where all contenders are in memory together and take turns, and its words.
RUNGS, WORDS, GROUP = 48, 512, 4
GOALS = {"a": 0.32, "b": 0.36}
#: Executed, with what is computed again.
GOAL_EXECUTED, GOAL_TIMES, GOAL_MEMORY = 0.48, 15.0, 0.1


def settings_of(name: str) -> dict[str, Any]:
    """Of TrainConfig: those of this step and of all below it.

    Raises:
        KeyError: there is no such step.
    """
    found: dict[str, Any] = {}
    for lever in LADDER:
        if lever.name == name:
            found |= lever.settings
            return found
        found |= {} if lever.beside else lever.settings
    raise KeyError(name)


def on_device(settings: dict[str, Any], device: str) -> dict[str, Any]:
    """What a CPU can do of them, where the script is tried."""
    gone = ("cuda_graph", "norm_kernel") if device == "cpu" else ()
    return {name: value for name, value in settings.items() if name not in gone}


def checkpointed(settings: dict[str, Any], case: Case) -> dict[str, Any]:
    """Of these, what there is without checkpoints."""
    gone = () if case.checkpoint_every else ("keep_attention", "recompute")
    return {name: value for name, value in settings.items() if name not in gone}


def formula(case: Case, settings: dict[str, Any]) -> dict[str, Any]:
    """How ``training_memory`` is asked about a contender."""
    kept = {name: settings[name] for name in ("recompute", "keep_attention") if name in settings}
    return {
        "checkpoint_every": case.checkpoint_every,
        **kept,
        "path": "plain",
        "precision": "autocast_half" if settings.get("stream") == "half" else "autocast",
        "device": "cuda",
    }


def resolved(case: Case, settings: dict[str, Any], memory: int) -> dict[str, Any]:
    """The same with layers counted, where they are to be as few as ``memory`` bytes allow."""
    settings = checkpointed(settings, case)
    if settings.get("recompute") != "auto":
        return settings
    how = formula(case, {**settings, "recompute": 0})
    count = fewest_recomputed(case.config, case.sequences, case.tokens, memory, **how)
    return {**settings, "recompute": count}


def formula_bytes(case: Case, settings: dict[str, Any]) -> int:
    """The peak that planning predicts; ``settings`` are resolved."""
    return training_memory(case.config, case.sequences, case.tokens, **formula(case, settings)).total


def executed_flops(case: Case, settings: dict[str, Any]) -> int:
    """Operations of a step with what is computed again; ``settings`` are resolved. Masked pairs do not count."""
    c, total = case.config, model_flops(case)
    if not case.checkpoint_every:
        return total
    recompute, keep = settings.get("recompute", "all"), bool(settings.get("keep_attention"))
    total += count_operations(
        c, case.sequences, case.tokens, checkpoint_every=case.checkpoint_every, recompute=recompute, path="plain"
    ).again
    for stack, n in (("encoder", c.encoder_layers), ("decoder", c.decoder_layers)):
        low = n if recompute == "all" else min(recompute, n)
        _, look = layer_operations(c, stack, case.sequences, case.tokens, case.tokens, causal=True)
        total += 0 if keep or not n else low * look
    return total


def rungs(name: str, small: bool = False) -> Case:
    """The shape with few layers and few words, for all contenders at once; the narrow one is itself."""
    case = CASES[name]
    if small:
        return replace(smoke(case), steps=1)
    if not case.checkpoint_every:
        return replace(case, steps=2)
    stacks = 2 if case.config.encoder_layers else 1
    depths = {f: RUNGS // stacks for f in ("encoder_layers", "decoder_layers") if getattr(case.config, f)}
    config = replace(case.config, **depths, vocab_size=WORDS)
    return replace(case, config=config, checkpoint_every=GROUP, steps=4)


def scaled(full: Case, case: Case, settings: dict[str, Any], memory: int) -> dict[str, Any]:
    """Settings for few layers: as large a share of them is computed again as at full depth."""
    found = resolved(full, settings, memory)
    if isinstance(count := found.get("recompute"), int):
        deep, few = full.config.decoder_layers, case.config.decoder_layers
        found = {**found, "recompute": max(1, round(count / deep * few))}
    return found


def contenders(name: str) -> dict[str, dict[str, Any] | None]:
    """All of a case: settings of ours, None for others'; on the narrow one the levers of checkpoints are none."""
    mine: dict[str, dict[str, Any] | None] = {}
    for lever in LADDER:
        settings = checkpointed(settings_of(lever.name), CASES[name])
        if settings not in mine.values():
            mine[lever.name] = settings
    slow = {who: settings for who, settings in mine.items() if settings and "autotune" in settings}  # to compile: last
    return {**{who: settings for who, settings in mine.items() if who not in slow}, **dict.fromkeys(OTHERS), **slow}


def together(
    name: str, rounds: int, device: str, memory: int, save: Callable[[dict[str, Any]], None], small: bool = False
) -> dict[str, Any]:
    """All contenders of a case in one process, in turn; ``save`` is told after each turn what there is so far."""
    case, asked = rungs(name, small), {}
    for who, settings in contenders(name).items():
        if settings is None:
            asked[who] = None
        else:
            asked[who] = on_device(scaled(CASES[name], case, settings, memory), device)
    return contend_together(case, asked, rounds, device, save)


# --- predictions


def predictions() -> dict[str, Any]:
    """What is expected of the ladder in case (b), and of (a) in proportion; computed from what was measured before."""
    found: dict[str, Any] = {"written": "before any of it was measured", "milliseconds a layer, b": []}
    at = MEASURED["b"]
    flops = {name: model_flops(CASES[name]) for name in "ab"}
    for lever in LADDER:
        then = at - lever.gain
        at = at if lever.beside else then
        found["milliseconds a layer, b"].append(
            {
                "step": lever.name,
                "gain": lever.gain,
                "then": round(then, 3),
                "model FLOPs utilisation": round(flops["b"] / then / 778.702e12, 3),
                "why": lever.why,
            }
        )
    for step in (TOP, LADDER[-1].name):
        (row,) = (row for row in found["milliseconds a layer, b"] if row["step"] == step)
        share = row["then"] / MEASURED["b"]
        found[f"model FLOPs utilisation at full depth, {step}"] = {
            "b": row["model FLOPs utilisation"],
            "a, in proportion": round(flops["a"] / (MEASURED["a"] * share) / 778.702e12, 3),
            "goals": GOALS,
        }
    return found


# --- profiles

#: Kernels by what they do, the first pattern that is found counts.
KINDS = {
    "attention": r"flash|fmha|sdpa|attention|cudnn.*(mha|attn)",
    "products": r"gemm|cutlass|nvjet|xmma|wgmma|cublas|splitK|aten::(addmm|mm|bmm|matmul|linear)|triton_(tem|mm)",
    "optimizer": r"adam|multi_tensor|foreach|fused_adam",
    "norms and sums": r"norm|triton_|reduce|elementwise|vectorized|gelu|relu|aten::|softmax|copy|cat",
}


def kind_of(kernel: str) -> str:
    """What a kernel does, by its name."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, kernel, re.IGNORECASE)), "other")


def least_work(case: Case, settings: dict[str, Any], wide: int = 4) -> dict[str, tuple[float, float]]:
    """Operations and bytes, by kind, that a step of layers cannot do without: from shapes alone.

    Bytes: products read two narrow matrices and write one, attention reads query, key and value and writes its output
    once forward and twice that backward; of LN(αx + f) three passes forward, and four backward, in ``wide`` bytes (the
    stream's); GELU or ReLU one read and one write of d_ff; AdamW 28 bytes a parameter.
    """
    c, rows = case.config, case.sequences * case.tokens
    low: dict[str, float] = {}
    for stack, n in (("encoder", c.encoder_layers), ("decoder", c.decoder_layers)):
        recompute = settings.get("recompute", "all") if case.checkpoint_every else 0
        low[stack] = n if recompute == "all" else min(recompute, n)
    d, ff, flops, moved = c.d_model, c.d_ff, {"products": 0.0, "attention": 0.0}, dict.fromkeys(KINDS, 0.0)
    parameters = 0.0
    for stack, n in (("encoder", c.encoder_layers), ("decoder", c.decoder_layers)):
        if not n:
            continue
        weights, look = layer_operations(c, stack, case.sequences, case.tokens, case.tokens, causal=True)
        looks = 2 if stack == "decoder" and c.encoder_layers else 1
        again = low[stack] * (not settings.get("keep_attention"))
        matrices = 4 * looks * d * d + 2 * d * ff
        width = looks * (4 * d + 2 * d) + 2 * (d + ff)  # what products of a layer read and write, a token
        flops["products"] += (3 * n + low[stack]) * weights
        flops["attention"] += (3.5 * n + again) * look
        moved["products"] += (3 * n + low[stack]) * 2 * (rows * width + matrices)
        moved["attention"] += (3 * n + again) * 2 * rows * 4 * d * looks
        moved["norms and sums"] += wide * rows * d * (looks + 1) * (7 * n + 3 * low[stack])
        moved["norms and sums"] += 2 * rows * ff * 2 * (2 * n + low[stack])
        parameters += n * matrices
    moved["optimizer"] = 28 * parameters
    return {kind: (flops.get(kind, 0.0), moved[kind]) for kind in KINDS}


def roofline(
    kernels: list[dict[str, Any]], work: dict[str, tuple[float, float]], peak: float, bandwidth: float
) -> list[dict[str, Any]]:
    """Of each kind: milliseconds that were taken, those that peak and bandwidth allow, and what bounds them."""
    rows = []
    for kind in (*KINDS, "other"):
        taken = sum(one["ms"] for one in kernels if kind_of(one["kernel"]) == kind)
        flops, moved = work.get(kind, (0.0, 0.0))
        compute, memory = 1e3 * flops / peak, 1e3 * moved / bandwidth
        least = max(compute, memory)
        rows.append(
            {
                "kind": kind,
                "ms": round(taken, 3),
                "least ms": round(least, 3),
                "bound by": "operations" if compute > memory else "bytes",
                "share of the roofline": round(least / taken, 3) if taken else None,
            }
        )
    return rows

"""The same measurements at many depths and seeds, kept as they come, so that a stopped sweep can resume."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from deepnet_edu import __version__
from deepnet_edu.fields import Count, Seed, Several, check_argument, checked
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError
from deepnet_edu.model import ModelConfig, build_model, random_batch
from deepnet_edu.probing.update import model_update
from deepnet_edu.probing.watch import probe
from deepnet_edu.profiles import Verdict

#: Quantities whose seeds are averaged as they are; and ratios, which differ by factors and are averaged as logarithms.
LINEAR = ("token_similarity", "input_share")
RATIOS = ("gradient_ratio", "update")
QUANTITIES = LINEAR + RATIOS
#: What a kept result says of its model is that of these verdicts; with others it is measured again.
VERDICTS = 2
#: Two-sided 95% points of Student's t, by degrees of freedom.
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


@dataclass(frozen=True)
class SweepRow:
    """One configuration, over seeds.

    Attributes:
        config: its fields.
        depth: layers of the deepest stack.
        seeds: those that were measured.
        mean: by quantity: token similarity and input share at the top, and the geometric means of first/last layer
            gradient and update, whose logarithms are what is nearly normal (over 10 seeds of Post-LN their standard
            deviation is 1.6 at 100 layers).
        half_width: of the 95% interval of the means of token similarity and input share; None for a single seed.
        factor: of the 95% interval of the geometric means, which goes from mean/factor to mean·factor; likewise.
        passed: seeds whose verdict is PASS.
        unsure: seeds whose verdict is UNSURE.
    """

    config: dict[str, Any]
    depth: int
    seeds: tuple[int, ...]
    mean: dict[str, float]
    half_width: dict[str, float] | None
    factor: dict[str, float] | None
    passed: int
    unsure: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@checked()
def depth_sweep(
    configs: Iterable[ModelConfig],
    seeds: Sequence[Seed] = (0, 1, 2),
    *,
    file: Path | None = None,
    length: Several = 32,
    batch_size: Count = 4,
    on_row: Callable[[SweepRow], None] | None = None,
) -> list[SweepRow]:
    """Probe each configuration with each seed, on a random batch of its own seed.

    Args:
        configs: models to build; usually one shape at several depths.
        seeds: of weights and batch.
        file: where results are kept, run by run; a sweep that was interrupted takes from it what is there.
        length: T.
        batch_size: B.
        on_row: called with each row as it is complete.

    Returns:
        A row per configuration, in their order.

    Raises:
        UserError: ``file`` is there and holds something else; it is left alone.
        ValueError: there is nothing to measure.
    """
    configs, seeds = list(configs), tuple(seeds)
    for config in configs:
        check_argument(config, ModelConfig, "configs")
    if not configs or not seeds:
        raise ValueError("A sweep needs at least one configuration and one seed.")
    known = {} if file is None else _read(file)
    rows = []
    for config in configs:
        results = []
        for seed in seeds:
            key = _key(config, seed, length, batch_size)
            if key not in known:
                known[key] = _measure(config, seed, length, batch_size)
                if file is not None:
                    write_atomic(file, json.dumps({"format": "depth_sweep", "runs": known}, indent=1) + "\n")
            results.append(known[key])
        rows.append(_row(config, seeds, results))
        if on_row is not None:
            on_row(rows[-1])
    return rows


def slope(depths: Sequence[float], values: Sequence[float]) -> float:
    """The power of depth with which a quantity grows: least squares of ln(value) on ln(depth).

    Raises:
        ValueError: less than two different depths, or a value that is not positive.
    """
    if len(set(depths)) < 2 or len(depths) != len(values):
        raise ValueError(f"A slope needs one value for each of two or more depths, not {list(depths)}.")
    if not all(value > 0 and np.isfinite(value) for value in values):
        raise ValueError(f"A slope in logarithms needs positive numbers, not {list(values)}.")
    return float(np.polyfit(np.log(depths), np.log(values), 1)[0])


def judge_sweep(rows: Sequence[SweepRow], quantity: str = "update") -> Verdict:
    """PASS if every run passed, FAIL if one failed, else UNSURE; with the power of depth by which ``quantity`` grows.

    The power decides nothing: the update of GLM-130B's constants falls with depth, and Post-LN's differs from seed to
    seed by factors (docs/verdicts.md).

    Raises:
        ValueError: less than two depths.
    """
    depths, values = [row.depth for row in rows], [row.mean[quantity] for row in rows]
    if len(set(depths)) < 2:
        raise ValueError(f"A sweep is judged over two or more depths, not {depths}.")
    growth = f"{quantity} is 0 at some depth"
    if all(value > 0 and np.isfinite(value) for value in values):
        growth = f"{quantity} grows as depth^{slope(depths, values):.2f}"
    failed = [str(row.depth) for row in rows if row.passed + row.unsure < len(row.seeds)]
    unsure = [str(row.depth) for row in rows if row.unsure]
    if failed:
        return Verdict(False, f"runs fail at depth {', '.join(failed)}; {growth}.")
    if unsure:
        return Verdict(None, f"runs cannot be judged at depth {', '.join(unsure)}: see probe(…).judge(); {growth}.")
    return Verdict(True, f"every run passes; {growth}.")


def _measure(config: ModelConfig, seed: int, length: int, batch_size: int) -> dict[str, Any]:
    model, batch = build_model(config, seed=seed), random_batch(config, batch_size, length, seed)
    profile = probe(model, batch)
    update = model_update(model, batch)
    top = profile.of(profile.stack[-1])
    assert top.token_similarity is not None
    assert top.input_share is not None
    assert top.gradient_norm is not None
    by_layer = top.gradient_by_layer()
    verdict = profile.judge(update)
    return {
        "token_similarity": float(top.token_similarity[-1]),
        "input_share": float(top.input_share[-1]),
        "gradient_ratio": float(by_layer[0] / by_layer[-1]) if by_layer[-1] > 0 else float("inf"),
        "update": update,
        "passed": verdict.passed is True,
        "unsure": verdict.passed is None,
    }


def _row(config: ModelConfig, seeds: tuple[int, ...], results: list[dict[str, Any]]) -> SweepRow:
    values = {name: np.array([result[name] for result in results], dtype=float) for name in QUANTITIES}
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in RATIOS:
            values[name] = np.log(values[name])
        mean = {name: float(array.mean()) for name, array in values.items()}
        mean |= {name: float(np.exp(mean[name])) for name in RATIOS}
        half = factor = None
        if len(seeds) > 1:
            t = _STUDENT.get(len(seeds) - 1, 1.96) / sqrt(len(seeds))
            width = {name: float(t * array.std(ddof=1)) for name, array in values.items()}
            half, factor = {name: width[name] for name in LINEAR}, {name: float(np.exp(width[name])) for name in RATIOS}
    return SweepRow(
        config=asdict(config),
        depth=max(config.encoder_layers, config.decoder_layers),
        seeds=seeds,
        mean=mean,
        half_width=half,
        factor=factor,
        passed=sum(result["passed"] for result in results),
        unsure=sum(result["unsure"] for result in results),
    )


def _key(config: ModelConfig, seed: int, length: int, batch_size: int) -> str:
    """What a result depends on, in short."""
    text = json.dumps([asdict(config), seed, length, batch_size, __version__, VERDICTS], sort_keys=True)
    return sha256(text.encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, dict[str, Any]]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["format"] != "depth_sweep":
            raise ValueError
        return dict(content["runs"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file} holds no depth sweep: it is left alone; give another file, or move it away.") from None

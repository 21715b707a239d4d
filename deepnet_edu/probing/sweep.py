"""The same measurements at many depths and seeds, kept as they come, so that a stopped sweep goes on."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np

from deepnet_edu import __version__
from deepnet_edu.fields import Count, Several, checked
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError
from deepnet_edu.models import ModelConfig, build_model, random_batch
from deepnet_edu.probing.update import model_update
from deepnet_edu.probing.watch import probe
from deepnet_edu.record import Verdict

#: A quantity that grows faster than depth to this power will not stay small at a thousand layers.
MAX_SLOPE = 0.5
QUANTITIES = ("token_similarity", "input_share", "gradient_ratio", "update")
#: Two-sided 95% points of Student's t, by degrees of freedom.
_STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26}


@dataclass(frozen=True)
class SweepRow:
    """One configuration, over seeds.

    Attributes:
        config: its fields.
        depth: layers of the deepest stack.
        seeds: those that were measured.
        mean: by quantity: token similarity and input share at the top, first/last layer gradient, and the update.
        half_width: of the 95% interval of that mean, by quantity; None for a single seed.
        passed: seeds whose verdict is PASS.
    """

    config: dict[str, Any]
    depth: int
    seeds: tuple[int, ...]
    mean: dict[str, float]
    half_width: dict[str, float] | None
    passed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


@checked()
def depth_sweep(
    configs: Iterable[ModelConfig],
    seeds: Sequence[int] = (0, 1, 2),
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
    """PASS if every run passed, and ``quantity`` grows with depth by less than a power of MAX_SLOPE.

    Raises:
        ValueError: less than two depths.
    """
    power = slope([row.depth for row in rows], [row.mean[quantity] for row in rows])
    failed = [row.depth for row in rows if row.passed < len(row.seeds)]
    if failed:
        return Verdict(
            False, f"runs fail at depth {', '.join(map(str, failed))}; {quantity} grows as depth^{power:.2f}."
        )
    return Verdict(power <= MAX_SLOPE, f"{quantity} grows as depth^{power:.2f} (at most {MAX_SLOPE}).")


def _measure(config: ModelConfig, seed: int, length: int, batch_size: int) -> dict[str, Any]:
    model, batch = build_model(config, seed=seed), random_batch(config, batch_size, length, seed)
    profile = probe(model, batch)
    update = model_update(model, batch)
    top = profile.of(profile.stack[-1])
    assert top.token_similarity is not None
    assert top.input_share is not None
    assert top.gradient_norm is not None
    per_layer = len(set(top.sublayer))
    first, last = top.gradient_norm[:per_layer].mean(), top.gradient_norm[-per_layer:].mean()
    return {
        "token_similarity": float(top.token_similarity[-1]),
        "input_share": float(top.input_share[-1]),
        "gradient_ratio": float(first / last) if last > 0 else float("inf"),
        "update": update,
        "passed": profile.judge(update).passed,
    }


def _row(config: ModelConfig, seeds: tuple[int, ...], results: list[dict[str, Any]]) -> SweepRow:
    values = {name: np.array([result[name] for result in results], dtype=float) for name in QUANTITIES}
    half = None
    if len(seeds) > 1:
        t = _STUDENT.get(len(seeds) - 1, 1.96)
        half = {name: float(t * array.std(ddof=1) / sqrt(len(seeds))) for name, array in values.items()}
    return SweepRow(
        config=asdict(config),
        depth=max(config.encoder_layers, config.decoder_layers),
        seeds=seeds,
        mean={name: float(array.mean()) for name, array in values.items()},
        half_width=half,
        passed=sum(result["passed"] for result in results),
    )


def _key(config: ModelConfig, seed: int, length: int, batch_size: int) -> str:
    """What a result depends on, in short."""
    text = json.dumps([asdict(config), seed, length, batch_size, __version__], sort_keys=True)
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

"""Where predictions are known to be off, from a record of what was measured beside them (benchmarks/predictions.py)."""

import json
from functools import cache
from math import log
from pathlib import Path
from typing import Any

from deepnet_edu.model.config import ModelConfig

FILE = Path(__file__).with_name("errors.json")
#: What is compared, and the profile's field that it comes from.
QUANTITIES = {
    "variance": "variance",
    "token similarity": "token_similarity",
    "input share": "input_share",
    "first/last layer gradient": "gradient_norm",
    "attention/FFN gradient": "gradient_norm",
}
#: A factor within which a prediction is right enough to say nothing of it.
CLOSE = 1.2


def known_errors(config: ModelConfig) -> dict[str, str]:
    """What of a prediction is off by more than 20% in the record, by quantity, in words; empty where nothing is.

    The row of the rule and architecture with the largest depth up to the model's counts, or the least. A difference
    that is within two standard errors of its seeds is noise, unless those are more than 20% themselves: what differs
    so much from seed to seed (Post-LN's gradient) is known by no prediction.
    """
    recorded = _rows().get((config.residual, config.architecture), [])
    layers = max(config.encoder_layers, config.decoder_layers)
    row = next((row for row in reversed(recorded) if row["layers"] <= layers), recorded[0] if recorded else {})
    found = {}
    for name in QUANTITIES:
        off, error = row.get(name) or (1.0, 1.0)
        if abs(log(off)) > log(CLOSE) and (abs(log(off)) > 2 * log(error) or error > CLOSE):
            more = f"{off:.2g} times" if off > 1 else f"1/{1 / off:.2g} of"
            seeds = f", within a factor {error:.2g}" if error > CLOSE else ""
            found[name] = f"{name} {more} what is measured at {row['layers']} layers{seeds}"
    return found


@cache
def _rows() -> dict[tuple[str, str], list[dict[str, Any]]]:
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in json.loads(FILE.read_text(encoding="utf-8"))["rows"]:
        rows.setdefault((row["residual"], row["architecture"]), []).append(row)
    return rows

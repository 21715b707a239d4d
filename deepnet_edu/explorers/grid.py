"""The bundled grid: what was measured beforehand, found by its exact settings.

An npz file without pickles: ``head``, JSON text (by what it was made, when, with which versions, seconds, recipes, and
the same of runs that were added later), and for each part the settings of its runs, JSON text, beside arrays with a row
per run. Settings that a run does not name are those that :mod:`~deepnet_edu.explorers.measured` has by default.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from deepnet_edu.explorers.settings import POINTS, MapRun, RaceSettings, SignalSettings
from deepnet_edu.files import write_atomic
from deepnet_edu.messages import UserError
from deepnet_edu.profiles import Array

PATH = Path(__file__).with_name("grid.npz")
PARTS = ("signal", "map", "race")
#: Numbers per run, by part and quantity.
_ROWS = {
    "signal": ("layer", "variance", "token_similarity", "input_share", "gradient"),
    "map": ("loss", "similarity", "share", "gradient"),
    "race": ("update",),
}
RecordedRun = tuple[str, Mapping[str, Any], Mapping[str, Any]]


class Grid:
    """All recorded runs, looked up by exact settings.

    Attributes:
        head: how the grid was made.
        depths, alphas, seeds: of the map.
    """

    def __init__(self, head: dict[str, Any], signals: Any, maps: Any, races: Any) -> None:
        self.head = head
        self._signals: dict[SignalSettings, dict[str, Array]] = signals
        self._maps: dict[tuple[int, float, int], MapRun] = maps
        self._races: dict[RaceSettings, Array] = races
        self.depths, self.alphas, self.seeds = (sorted({key[i] for key in maps}) for i in range(3))

    def signal(self, settings: SignalSettings) -> dict[str, Array] | None:
        """The recorded signal with exactly these settings, as :func:`~measured.by_layer` has it, or None."""
        return self._signals.get(settings)

    def race(self, settings: RaceSettings) -> Array | None:
        """The recorded race with exactly these settings, or None."""
        return self._races.get(settings)

    def cell(self, depth: int, alpha: float) -> list[MapRun]:
        """The runs of one cell of the map, by seed; none where there is no such cell."""
        keys = ((depth, alpha, seed) for seed in self.seeds)
        return [self._maps[key] for key in keys if key in self._maps]

    def signals(self) -> list[SignalSettings]:
        """What was recorded of the first part."""
        return list(self._signals)

    def races(self) -> list[RaceSettings]:
        """What was recorded of the third."""
        return list(self._races)

    @property
    def date(self) -> str:
        """When and on what it was recorded, but for the signals that were added later."""
        return f"recorded {self.head['date']} on {self.head['device']}"

    def date_of(self, settings: SignalSettings) -> str:
        """When and on what this signal was recorded."""
        for added in self.head.get("added", ()):
            if settings in [SignalSettings(**one) for one in added["runs"]]:
                return f"recorded {added['date']} on {added['device']}"
        return self.date

    @property
    def source(self) -> str:
        """One line for under a picture."""
        return f"{self.date}; remake with: {self.head['made_by']}"


@lru_cache(maxsize=1)
def load(path: Path = PATH) -> Grid:
    """The bundled grid.

    Raises:
        UserError: the file is missing, cut off, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(str(file["head"]))
            tables = {part: _table(file, part) for part in PARTS}
        signals = {
            SignalSettings(**settings): {
                name: values[np.isfinite(row["layer"])].astype(float) for name, values in row.items()
            }
            for settings, row in tables["signal"]
        }
        maps = {
            (int(s["depth"]), float(s["alpha"]), int(s["seed"])): MapRun(
                row["loss"].astype(float), *(float(row[name][0]) for name in _ROWS["map"][1:])
            )
            for s, row in tables["map"]
        }
        races = {RaceSettings(**settings): row["update"].astype(float) for settings, row in tables["race"]}
        return Grid(head, signals, maps, races)
    except (OSError, ValueError, KeyError, TypeError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"The recorded measurements in {path.name} cannot be read ({type(error).__name__}): pictures show theory "
            "alone. Install the package again, or make them: python benchmarks/explorer_grid.py"
        ) from error


def _table(file: Any, part: str) -> list[tuple[dict[str, Any], dict[str, Array]]]:
    settings = json.loads(str(file[f"{part}_settings"]))
    columns = {name: file[f"{part}_{name}"] for name in _ROWS[part]}
    if any(len(column) != len(settings) for column in columns.values()):
        raise ValueError(f"{part}: another number of rows than of settings")
    return [(one, {name: column[i] for name, column in columns.items()}) for i, one in enumerate(settings)]


def write(path: Path, head: Mapping[str, Any], runs: Sequence[RecordedRun]) -> None:
    """Write a grid whole, or not at all.

    Args:
        path: of the npz file.
        head: plain JSON values.
        runs: part, settings and results of each run, plain JSON values.
    """
    arrays: dict[str, Any] = {"head": np.array(json.dumps(head))}
    for part, names in _ROWS.items():
        own = [(settings, result) for name, settings, result in runs if name == part]
        arrays[f"{part}_settings"] = np.array(json.dumps([settings for settings, _ in own]))
        for name in names:
            rows = [np.atleast_1d(np.array(result[name], dtype=np.float32)) for _, result in own]
            width = POINTS if part == "signal" else max((len(row) for row in rows), default=1)
            arrays[f"{part}_{name}"] = np.array(
                [np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows], dtype=np.float32
            )
    packed = BytesIO()
    np.savez_compressed(packed, **arrays)
    write_atomic(path, packed.getvalue())

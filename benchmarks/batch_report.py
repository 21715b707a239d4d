"""Time and size of the report of 200 runs, by made-up status files and the notebooks of solutions/.

The whole command must take less than 10 s, and the page 50 MB, with small notebooks and with ones too large for it.
Run with: python benchmarks/batch_report.py (half a minute)
"""

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests/ is not part of the package

from deepnet_edu.course.places import SOLUTIONS
from tests.batch.made_up import make_run

RUNS = 200
MOST_S, MOST_MB = 10.0, 50.0


def make_batch(folder: Path, times: int) -> None:
    """A sweep over depth and rule for two seeds; notebooks are solutions whose cells are there ``times`` times."""
    dice = random.Random(0)
    for number in range(RUNS):
        sources = sorted(SOLUTIONS.glob("*.ipynb"))
        source = sources[number // 2 % len(sources)]
        setting = {
            "DEPTH": [100, 200, 400, 800, 1000][number // 20 % 5],
            "RESIDUAL": ["post_ln", "deepnorm"][number // 100],
        }
        bad = number % 20 == 3
        make_run(
            folder,
            f"{source.stem}.{number:012x}",
            json.loads(source.read_text(encoding="utf-8"))["cells"] * times,
            state="failed" if bad else "done",
            problems=["cell 3 raised ValueError: made up"] if bad else [],
            seed=number % 2,
            parameters={**setting, "SEED": number % 2},
            metrics={name: dice.gauss(1, 0.1) for name in ("loss", "accuracy", "slope")},
        )


def main() -> None:
    """Print a line per batch; exit status 1 if one is too slow or too large."""
    missed = False
    for times in (1, 10):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "batch"
            make_batch(folder, times)
            command = [sys.executable, "-c", "from deepnet_edu.cli import main; main()", "report", str(folder)]
            begin, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
            processor = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
            size = (folder / "report.html").stat().st_size / 1e6
            notebooks = sum(path.stat().st_size for path in folder.glob("*/notebook.ipynb")) / 1e6
        print(
            f"{RUNS} runs, {notebooks:.1f} MB of notebooks: {size:.1f} MB, {seconds:.1f} s, {processor:.1f} of a core"
        )
        missed |= seconds > MOST_S or size > MOST_MB
    if missed:
        sys.exit(f"A report takes more than {MOST_S:g} s or {MOST_MB:g} MB.")


if __name__ == "__main__":
    main()

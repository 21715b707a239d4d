"""Everything that CI runs, in order of price; `make test` calls this. Stops at the first failure and names it."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
NOTEBOOKS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "solutions").glob("*.ipynb"))]
LESSONS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "lessons").glob("*.ipynb"))]
PYTEST = [sys.executable, "-m", "pytest", "-q"]
# A process for each of two cores is more than twice as quick as one process with two threads: most tensors are small.
SIDE_BY_SIDE = ["-n", "2", "--dist", "worksteal"]  # long tests stand together: who is done takes from the other
BY_FILE = ["-n", "2", "--dist", "loadfile"]  # a notebook is one kernel, its cells are tests
NBVAL = ["--nbval-current-env", "--nbval-cell-timeout=300", "--nbval-sanitize-with=tests/nbval.cfg"]


#: Tests that know no path, or ask for both themselves.
_KNOW_NONE = (
    "benchmarks", "checkpoints", "compile", "data", "data_bpe", "data_hub", "data_packing", "data_translation",
    "explorer_figures", "explorers", "figures", "files", "fit", "packaging", "planning_time", "progress", "ranks",
    "recomputation", "rooms", "runs", "scaling", "watching",
)  # fmt: skip
NO_PATH = [f"--ignore=tests/unit/test_{name}.py" for name in _KNOW_NONE]
SMOKE = {"DEEPNET_EDU_PROFILE": "smoke"}
ALONE = {"OMP_NUM_THREADS": "1"}
PLAIN = {**ALONE, "DEEPNET_EDU_TEST_PATH": "plain"}
STEPS: list[tuple[str, list[str], dict[str, str]]] = [
    ("ruff", [str(BIN / "ruff"), "check", "."], {}),
    ("ruff format", [str(BIN / "ruff"), "format", "--check", "."], {}),
    (
        "mypy; unit, checks, course and batch tests",
        # What takes longest begins first, so that no process waits for it at the end; mypy has one core of two.
        [*PYTEST, *SIDE_BY_SIDE, "tests/course", "tests/checks", "tests/batch", "tests/unit"],
        ALONE,
    ),
    ("unit tests again, on the plain path", [*PYTEST, *SIDE_BY_SIDE, "tests/unit", *NO_PATH], PLAIN),
    ("many ranks, two and four processes", [*PYTEST, "tests/distributed"], ALONE),
    ("solutions, outputs compared (nbval)", [*PYTEST, *BY_FILE, "--nbval", *NBVAL, *NOTEBOOKS], SMOKE),
    ("untouched lessons run (nbval-lax)", [*PYTEST, *BY_FILE, "--nbval-lax", *NBVAL, *LESSONS], SMOKE),
    (
        "solutions audited, lesson 00 at full depth too (papermill); JupyterLab in Chromium",
        [*PYTEST, *SIDE_BY_SIDE, "tests/papermill", "tests/browser"],
        {**ALONE, **SMOKE},
    ),
]


def main() -> None:
    """Run all steps with their times."""
    os.chdir(ROOT)
    # Whatever the caller has set, tests choose the profile, and a learner's progress stays out of it.
    base = {name: value for name, value in os.environ.items() if not name.startswith("DEEPNET_EDU_")}
    base |= {"OMP_WAIT_POLICY": "PASSIVE"}
    times = []
    for name, command, environment in STEPS:
        print(f"\n=== {name}", flush=True)
        begin = time.monotonic()
        result = subprocess.run(command, env={**base, **environment}).returncode
        times.append((name, time.monotonic() - begin))
        if result:
            sys.exit(f"\nFAILED: {name} (exit status {result}). Again alone with:\n  {' '.join(command)}")
    print("\n=== all passed")
    for name, seconds in times:
        print(f"{seconds:7.1f} s  {name}")
    print(f"{sum(seconds for _, seconds in times):7.1f} s  together")


if __name__ == "__main__":
    main()

"""Everything that CI runs, in order of price; `make test` calls this. Stops at the first failure and names it.

With --processors the steps that compute are run as other processors would: `make test-processors` calls that.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

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
    "benchmarks", "checkpoints", "checkpoints_forged", "compile", "data", "data_bpe", "data_hub", "data_packing",
    "data_translation", "entry_points", "explorer_figures", "explorers", "fields", "figures", "files", "fit",
    "lock", "messages", "objects", "packaging", "planning_time", "progress", "ranks", "recomputation", "rooms",
    "run_folder", "runs", "scaling", "watching",
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


#: Other processors by what they change here: the order of sums in PyTorch, MKL, oneDNN and NumPy, and how many add.
#: MKL lowers its instructions by MKL_ENABLE_INSTRUCTIONS on Intel's processors alone, by MKL_CBWR on all.
PROCESSORS: dict[str, dict[str, str]] = {
    "its own instructions, two threads": {"OMP_NUM_THREADS": "2"},
    "no vectors in PyTorch": {"ATEN_CPU_CAPABILITY": "default"},
    "no vectors in PyTorch, two threads": {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2"},
    "AVX2 everywhere": {
        "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "MKL_CBWR": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell",
    },
    "SSE in the libraries": {
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41",
        "OPENBLAS_CORETYPE": "Nehalem",
    },
}  # fmt: skip


def main() -> None:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--processors", nargs="?", const="all", choices=("all", "quick"),
        help="as other processors would: all that computes, in hours; quick, the unit tests alone",
    )  # fmt: skip
    asked = parser.parse_args().processors
    os.chdir(ROOT)
    print(where(), flush=True)
    # Whatever the caller has set, tests choose the profile, and a learner's progress stays out of it.
    base = {name: value for name, value in os.environ.items() if not name.startswith("DEEPNET_EDU_")}
    base |= {"OMP_WAIT_POLICY": "PASSIVE"}
    if asked:
        as_others(base, asked == "quick")
    else:
        all_steps(base)


def where() -> str:
    """The machine, since a failure may depend on it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, threads: {torch.get_num_threads()}"
    )


def done(name: str, command: list[str], environment: dict[str, str]) -> tuple[int, float]:
    """Exit status and seconds of a step."""
    print(f"\n=== {name}", flush=True)
    begin = time.monotonic()
    return subprocess.run(command, env=environment).returncode, time.monotonic() - begin


def as_others(base: dict[str, str], quick: bool) -> None:
    """Run what computes under every setting, to the end, and say what passed."""
    unit = [("unit tests", [*PYTEST, *SIDE_BY_SIDE, "tests/unit"], ALONE)]
    rows = []
    for setting, changes in PROCESSORS.items():
        for name, command, environment in unit if quick else STEPS:
            if not name.startswith("ruff"):
                result, seconds = done(f"{setting}: {name}", command, {**base, **environment, **changes})
                rows.append((f"FAILED ({result})" if result else "passed", seconds, setting, name))
    print()
    for said, seconds, setting, name in rows:
        print(f"{said:10} {seconds:7.1f} s  {setting}: {name}")
    if any(said != "passed" for said, *_ in rows):
        sys.exit(1)


def all_steps(base: dict[str, str]) -> None:
    """Run all steps with their times, up to the first that fails."""
    times = []
    for name, command, environment in STEPS:
        result, seconds = done(name, command, {**base, **environment})
        times.append((name, seconds))
        if result:
            sys.exit(f"\nFAILED: {name} (exit status {result}). Again alone with:\n  {' '.join(command)}")
    print("\n=== all passed")
    for name, seconds in times:
        print(f"{seconds:7.1f} s  {name}")
    print(f"{sum(seconds for _, seconds in times):7.1f} s  together")


if __name__ == "__main__":
    main()

"""Everything that CI runs, as one pytest session; `make test` calls this. tests/plugin.py says in which order.

python tests/run.py --durations   and then rewrite tests/durations.json
python tests/run.py --processors  what computes, as other processors would; `make test-processors` calls that
python tests/run.py --marked course   the tests of this mark alone, which the session leaves out
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "solutions").glob("*.ipynb"))]
#: A process for each of two cores is more than twice as quick as one with two threads: most tensors are small.
#: A process that dies is not replaced: the session ends, and has failed.
PYTEST = [
    sys.executable, "-m", "pytest", "-q", "-p", "tests.plugin", "-n", "2",
    "--max-worker-restart=0", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=300",
    "--nbval-sanitize-with=tests/nbval.cfg",
]  # fmt: skip
ALONE = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
#: What no processor changes; and with `quick`, what takes long.
STYLE = ["--ignore=tests/house/test_style.py"]
LONG = [f"--ignore=tests/{room}" for room in ("notebooks", "browser", "house")]

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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_mutually_exclusive_group()
    asked.add_argument("--durations", action="store_true", help="rewrite tests/durations.json, if all tests pass")
    asked.add_argument(
        "--processors", nargs="?", const="all", choices=("all", "quick"),
        help="as other processors would: all that computes, in hours; quick, the rooms of the package alone",
    )  # fmt: skip
    asked.add_argument("--marked", choices=("course", "record"), help="the tests that make course or make record run")
    given = parser.parse_args()
    print(where(), flush=True)
    if given.processors:
        sys.exit(as_others(["tests", *LONG] if given.processors == "quick" else ["tests", *NOTEBOOKS, *STYLE]))
    if given.marked:
        sys.exit(session(["-m", given.marked, "tests"]))
    sys.exit(session(["tests", *NOTEBOOKS, *(["--keep-durations"] if given.durations else [])]))


def where() -> str:
    """The machine, since a failure may depend on it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"
    )


def session(arguments: Sequence[str], changes: Mapping[str, str] | None = None) -> int:
    """The exit status of a session; prints it and the seconds."""
    begin = time.monotonic()
    # Whatever the caller has set, tests choose the profile, and a learner's progress stays out of it.
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DEEPNET_EDU_")}
    process = subprocess.Popen([*PYTEST, *arguments], cwd=ROOT, env={**kept, **ALONE, **(changes or {})})
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt:
            pass  # the terminal has told pytest, too, which ends what it has started
    print(f"\n{'FAILED' if status else 'passed'}: exit status {status}, {time.monotonic() - begin:.0f} s", flush=True)
    return status


def as_others(arguments: Sequence[str]) -> int:
    """Run a session under each setting, to the end, and say what passed."""
    rows = []
    for setting, changes in PROCESSORS.items():
        print(f"\n=== {setting}", flush=True)
        begin = time.monotonic()
        rows.append((session(arguments, changes), time.monotonic() - begin, setting))
    print()
    for status, seconds, setting in rows:
        print(f"{f'FAILED ({status})' if status else 'passed':10} {seconds:7.1f} s  {setting}")
    return max(status for status, *_ in rows)


if __name__ == "__main__":
    main()

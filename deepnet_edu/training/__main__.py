"""One rank of a run: ``torchrun --nproc-per-node 4 -m deepnet_edu.training laptop-1000 --plan data=4``."""

import argparse
import json
import os
import shlex
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from deepnet_edu.experiment.config import FILE, find_run
from deepnet_edu.experiment.execute import carry_out, check_plan, find_device, folder_of, say_end, unwritten
from deepnet_edu.messages import UserError
from deepnet_edu.planning import Plan
from deepnet_edu.training.distributed.process import run_rank


def main() -> None:
    """Take part in a run; what ends it is said by one of the ranks."""
    parser = argparse.ArgumentParser(prog="python -m deepnet_edu.training", description=main.__doc__)
    parser.add_argument("what", metavar="PRESET|CONFIG.toml")
    parser.add_argument("--plan", default="", help="data=2,pipeline=2 for example; data=RANKS by default")
    parser.add_argument("--set", dest="given", action="append", default=[], metavar="KEY=VALUE", help="steps=50")
    parser.add_argument("--out", type=Path, help="folder of the run, seen by all ranks; runs/NAME by default")
    parser.add_argument("--resume", action="store_true", help="resume after the last checkpoint in that folder")
    parser.add_argument("--take-over", action="store_true", help="resume a run whose machine is gone")
    parser.add_argument("--device", default="auto", help="cpu, cuda or auto")
    parser.add_argument("--json", dest="as_json", action="store_true", help="print JSON for a script")
    parser.add_argument("--go-on", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    # What --device says is refused where it is said by one rank only.
    device = "cpu" if given.device not in ("cuda", "auto") else _quiet_device(given.device)
    folder = folder_of(given.what, given.out)
    plan_text = given.plan or f"data={ranks}"
    run_file = shlex.quote(str(folder / FILE))
    go_on = given.go_on or (
        f"torchrun --nproc-per-node {os.environ.get('LOCAL_WORLD_SIZE', ranks)} -m deepnet_edu.training "
        f"{run_file} --plan {plan_text} --resume"
    )

    def work() -> int:
        find_device(given.device)
        plan = Plan.parse(plan_text)
        run = find_run(given.what, given.given)
        check_plan(plan, run, ranks)
        try:
            how: dict[str, Any] = {"plan": plan, "progress": not given.as_json, "take_over": given.take_over}
            result = carry_out(run, folder, device, given.resume, go_on, **how)
        except OSError as error:
            raise unwritten(error, folder, go_on) from None
        if os.environ.get("RANK", "0") == "0":
            with suppress(OSError) if result["stopped"] else nullcontext():  # by a terminal that was closed, it may be
                print(json.dumps(result) if given.as_json else say_end(result), flush=True)
        return 128 + result["signal"] if result["stopped"] else 0

    if "RANK" not in os.environ:
        raise SystemExit(
            "python -m deepnet_edu.training is one rank of many: start it by torchrun, or use deepnet-edu train."
        )
    run_rank(work, device, go_on)


def _quiet_device(given: str) -> str:
    try:
        return find_device(given)
    except UserError:
        return "cpu"


if __name__ == "__main__":
    main()

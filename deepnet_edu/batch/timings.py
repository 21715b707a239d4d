"""Time and memory of the lessons, as docs/timings.json has them."""

import json
import os
from collections.abc import Sequence
from datetime import date

from deepnet_edu.batch.state import Status
from deepnet_edu.course import header, places
from deepnet_edu.files import write_atomic


def keep_timings(runs: Sequence[Status]) -> None:
    """Write time and memory of the lessons that went well, with default parameters, into docs/timings.json.

    Args:
        runs: one after the other in one slot; together they would slow each other down.
    """
    lessons = header.timings()
    for run in runs:
        if run.state != "done" or run.parameters or (places.ROOT / run.source).parent != places.SOLUTIONS:
            continue
        gpu = run.profile in ("gpu", "record") and run.gpu is not None
        lessons.setdefault(run.notebook, {})[run.profile] = {
            "seconds": round(run.seconds or 0.0),
            "memory_gb": None if run.memory_gb is None else round(run.memory_gb, 2),
            "device": run.device if gpu else "CPU",
            "cores": os.cpu_count(),
            "python": run.versions["python"],
            "torch": run.versions["torch"],
            "date": (run.ended or date.today().isoformat())[:10],
        }
    record = {"made_by": "make course", "lessons": dict(sorted(lessons.items()))}
    write_atomic(places.TIMINGS, json.dumps(record, indent=1) + "\n")

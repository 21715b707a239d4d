"""The command that reviews a model of any make."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from deepnet_edu.cli.app import Json, app
from deepnet_edu.fields import whole_number
from deepnet_edu.messages import UserError, shown


def layers(given: str) -> tuple[int, int]:
    """Layers of encoder and decoder from ``N`` or ``N,M``."""
    counts = [whole_number(part) for part in given.split(",")]
    known = [count for count in counts if count is not None and 0 <= count <= 10**6]
    if len(known) != len(counts) or len(counts) > 2 or not any(known):
        raise UserError(f"--depth {shown(given)}: expected N layers, or N,M of encoder and decoder, such as 0,24.")
    return (known[0], known[1]) if len(known) == 2 else (0, known[0])


@app.command()
def review(
    target: Annotated[
        str,
        typer.Argument(
            help="file.py:NAME or package.module:NAME of a function, a class or a model; or a Hugging Face "
            "config.json, or the folder that holds one."
        ),
    ],
    depth: Annotated[
        str | None,
        typer.Option(metavar="N[,M]", help="Layers, or those of encoder and decoder, if the model does not tell."),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Also a file for the findings as JUnit XML.")] = None,
    sarif: Annotated[Path | None, typer.Option(help="Also a file for the findings as SARIF 2.1.0.")] = None,
    as_json: Json = False,
) -> None:
    """Check whether a model of any make is DeepNorm: α on the skip, norm outside, gains, copies, signal at depth.

    This runs the code of the file or module that it is given, as python would: review only code that you trust. The
    function returns a freshly initialised model, or a pair of it and the batch to run it on. A Hugging Face config is
    built at random weights; no weights are read, no code of the config's own is run, nothing is downloaded.

    Exit status 1 says that it is not DeepNorm, 3 that it could not be judged.

    Example: deepnet-edu review my/model.py:build_model --sarif review.sarif
    """
    from deepnet_edu.files import check_output, is_junit, write_output
    from deepnet_edu.review.report import as_junit, as_sarif, is_sarif
    from deepnet_edu.review.target import review_target

    known = None if depth is None else layers(depth)
    if junit and sarif and os.path.realpath(junit) == os.path.realpath(sarif):
        raise UserError(f"--junit and --sarif are both {junit}: give two files.")
    if junit:
        check_output("--junit", junit, "JUnit", is_junit)
    if sarif:
        check_output("--sarif", sarif, "SARIF", is_sarif)
    reviewed = review_target(target, known)
    if junit:
        write_output("--junit", junit, "JUnit", is_junit, as_junit(reviewed))
    if sarif:
        write_output("--sarif", sarif, "SARIF", is_sarif, as_sarif(reviewed))
    if as_json:
        print(json.dumps({"target": target, **reviewed.review.to_dict()}, ensure_ascii=False))
    else:
        print(reviewed.review)
    raise typer.Exit({"PASS": 0, "FAIL": 1, "UNKNOWN": 3}[reviewed.review.verdict])

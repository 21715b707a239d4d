"""The command about data: data."""

import json
from typing import Annotated, Any

import typer

from deepnet_edu.cli.app import Json, app, print_table
from deepnet_edu.messages import UserError


@app.command()
def data(
    name: Annotated[str | None, typer.Argument(help="Of a data set; without one, all are listed.")] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Sizes by part and what simple methods reach, which takes seconds.")
    ] = False,
    languages: Annotated[
        str | None, typer.Option(metavar="de,fr", help="Targets of multilingual, as Django calls them; all by default.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the data sets of the course, or show one: what it is, its parts, yardsticks and licence.

    Nothing is fetched. What is not installed says what to type.

    Example: deepnet-edu data multilingual --stats --languages de,fr
    """
    from deepnet_edu.data.sets import SETS, find_set
    from deepnet_edu.data.sets import stats as stats_of

    if name is None:
        if stats or languages:
            raise UserError(
                "--stats and --languages are of one data set: name it, for example deepnet-edu data digits."
            )
        columns = ["name", "kind", "title", "licence", "load"]
        rows = [{column: getattr(one, column, name) for column in columns} for name, one in SETS.items()]
        if as_json:
            print(json.dumps(rows, indent=1, ensure_ascii=False))
        else:
            print_table(columns, [list(row.values()) for row in rows])
            print("from deepnet_edu.data import …; sizes and yardsticks: deepnet-edu data NAME --stats")
        return
    chosen = find_set(name)
    if languages and not stats:
        raise UserError("--languages chooses what --stats counts: add --stats, or leave it out.")
    if not stats:
        about = {"name": name, "kind": chosen.kind, "title": chosen.title, "licence": chosen.licence}
        if as_json:
            print(json.dumps(about | {"load": chosen.load}, ensure_ascii=False))
            return
        print(f"{name}: {chosen.title}.\nLicence: {chosen.licence}.")
        print(f"from deepnet_edu.data import {chosen.load.split('(')[0]}; {chosen.load}")
        return
    found = stats_of(name, [one.strip() for one in languages.split(",")] if languages else [])
    table = found.pop("table", None)
    if as_json:
        print(json.dumps(found, ensure_ascii=False))
        return
    _say(found)
    if table is not None:
        print(table)


def _say(found: dict[str, Any]) -> None:
    print(f"{found['name']}: {found['title']}.\nLicence: {found['licence']}.")
    if "languages" in found:
        print(f"{len(found['languages'])} languages: {', '.join(found['languages'])}.")
    if "shape" in found:
        print(f"Channels × height × width: {' × '.join(map(str, found['shape']))}; {found['classes']} classes.")
    columns = [name for name in next(iter(found["parts"].values())) if name != "by_class"]
    rows = [[part, *(f"{sizes[name]:,}" for name in columns)] for part, sizes in found["parts"].items()]
    print_table(["part", *(name.replace("_", " ") for name in columns)], rows)
    shared = {"text": "passages", "translation": "sources", "images": "images"}[found["kind"]]
    print(f"{shared.capitalize()} that two parts share: {found['shared']}.")
    if "vocab_size" in found:
        print(f"Tokens: {found['vocab_size']:,} byte pairs, learned from the training part.")
    for reason, count in found.get("skipped", {}).items():
        print(f"Entries of catalogs that were left out, {reason}: {count}.")
    if "bits_per_byte" in found:
        bits = found["bits_per_byte"]
        print_table(
            ["bits per byte", *bits["train"]],
            [[part, *(f"{value:.2f}" for value in row.values())] for part, row in bits.items()],
        )
        print("train: entropies of its own counts. test: by the counts of train, and after it, for all columns.")
    if "accuracy" in found:
        print_table(["right in test", "share"], [[name, f"{share:.3f}"] for name, share in found["accuracy"].items()])
    if "yardsticks" in found:
        print(
            f"Three yardsticks on {found['yardsticks']['sentences']:,} pairs of the test part, drawn at random. "
            "Intervals take each pair for independent; those of one source in many languages are not."
        )

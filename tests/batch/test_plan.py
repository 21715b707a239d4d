"""What is refused before anything starts, what identifies a run, and how fast a thousand runs are planned."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deepnet_edu.batch.folder import fill_folder, read_request, runs_of, take_folder
from deepnet_edu.batch.plan import BatchPlan, Request, make_plan
from deepnet_edu.batch.slots import Gpu, find_gpus, make_slots, usable_gpus
from deepnet_edu.batch.state import Status
from deepnet_edu.messages import UserError
from tests.batch.conftest import write_notebook

Planner = Callable[..., BatchPlan]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("DEPHT=3", "x: Unknown parameter 'DEPHT': did you mean 'DEPTH'?"),
        ("SEED", "Cannot read the parameter 'SEED': expected NAME=VALUE"),
        ("SEED=x", "x: SEED='x' does not fit: expected a whole number, as in SEED=0."),
        ("SEED=1.5", "expected a whole number"),
        ("SEED=True", "expected a whole number"),
        ("RATE=fast", "expected a number, as in RATE=3e-4."),
        ("RATE=1e309", "RATE='1e309' does not fit: expected a number"),
        ("RATE=nan", "expected a number"),
        pytest.param("SEED=" + "[" * 10_000, "expected a whole number", id="deep"),
        pytest.param("SEED=" + "9" * 5000, "expected a whole number", id="5,000 digits"),
        ("DEEP=1", "expected True or False"),
        ("PROFILE=smok", "Unknown PROFILE 'smok': did you mean 'smoke'?"),
        ("SEED=__import__('os')", "expected a whole number"),
        ("SEED={[]:1}", "expected a whole number"),
        ("RATE=1", "RATE has a value already: say it once."),
    ],
)
def test_parameters_are_refused_before_anything_starts(planned: Planner, given: str, said: str) -> None:
    write_notebook(Path("x.ipynb"))
    with pytest.raises(UserError) as refused:
        planned("x.ipynb", given=("RATE=1", given) if given == "RATE=1" else (given,))
    assert said in str(refused.value)


def test_sweeps_are_multiplied_and_seeds_stand_together(planned: Planner) -> None:
    write_notebook(Path("ä b.ipynb"))
    plan = planned("ä b.ipynb", "ä b.ipynb", given=("NAME=a/../b; c",), sweeps=("DEPTH=100,200", "RATE=1,2"), seeds=2)
    assert len(plan.runs) == 8 == len(plan.notebooks)
    assert [run.seed for run in plan.runs[:4]] == [0, 1, 0, 1]
    first = plan.runs[0]
    assert first.parameters == {"NAME": "a/../b; c", "DEPTH": 100, "RATE": 1.0, "SEED": 0}
    assert (first.notebook, first.state, first.profile) == ("ä b", "queued", "cpu")
    stem, _, digits = first.id.rpartition(".")
    assert stem == "ä_b"
    assert len(digits) == 12


def test_a_run_is_what_its_notebook_package_profile_and_parameters_are(
    planned: Planner, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_notebook(Path("x.ipynb"), "1")
    one = planned("x.ipynb").runs[0].id
    assert planned("x.ipynb").runs[0].id == one
    others = {planned("x.ipynb", given=("SEED=1",)).runs[0].id, planned("x.ipynb", profile="smoke").runs[0].id}
    with monkeypatch.context() as patched:
        patched.setattr("deepnet_edu.course.places.package_digest", lambda: "another")
        others.add(planned("x.ipynb").runs[0].id)
    write_notebook(Path("x.ipynb"), "2")
    assert len({one, *others, planned("x.ipynb").runs[0].id}) == 5


def test_what_cannot_run_is_said_and_the_rest_is_planned(planned: Planner, working: Path) -> None:
    write_notebook(Path("good.ipynb"))
    Path("bad.ipynb").write_text("{no")
    Path("list.ipynb").write_text("[]")
    write_notebook(Path("bare.ipynb"), "1", parameters=None)
    write_notebook(Path("odd.ipynb"), "1", parameters="SEED = 'x'")
    write_notebook(Path("other.ipynb"), "1", parameters="DEPTH = 1")
    write_notebook(Path("broken.ipynb"), "1", parameters="SEED = = 1")
    content = json.loads(Path("good.ipynb").read_text())
    content["metadata"]["kernelspec"] = {"name": "julia-1.9"}
    Path("julia.ipynb").write_text(json.dumps(content))
    content["metadata"]["kernelspec"]["language"] = "R"
    Path("r.ipynb").write_text(json.dumps(content))
    names = ["good", "bad", "list", "bare", "other", "broken", "julia", "r", "none/here"]
    plan = planned(*(f"{name}.ipynb" for name in names), "77", given=("SEED=3",))
    assert [run.state for run in plan.runs] == ["queued", *["failed"] * 9]
    said = {run.notebook: run.problems[0] for run in plan.runs[1:]}
    assert said["list"] == "list.ipynb is not a notebook: it has no cells."
    assert said["bad"].startswith("bad.ipynb is not a notebook: it is not JSON (Expecting property name")
    assert said["bare"] == "bare has no parameters: give the cell that holds them the tag parameters."
    assert said["other"] == "other: Unknown parameter 'SEED': expected one of 'DEPTH'."
    assert said["broken"] == "broken.ipynb: the cell tagged parameters is not Python (line 1)."
    assert said["julia"].startswith(
        "julia.ipynb names the kernel 'julia-1.9', which is not installed here, and no lang"
    )
    assert said["r"] == "r.ipynb is a notebook for R: expected one for Python."
    assert "There is no notebook none/here.ipynb" in said["here"]
    assert said["77"].startswith("Unknown lesson '77'")
    assert len({run.id for run in plan.runs}) == 10


def test_own_notebooks_may_be_anywhere(planned: Planner, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = write_notebook(tmp_path_factory.mktemp("elsewhere") / "x.ipynb", "1")
    Path("link.ipynb").symlink_to(outside)
    (run,) = planned(str(outside), "link.ipynb").runs  # which is the same one
    assert (run.state, run.source) == ("queued", str(outside))


def strange(**metadata: object) -> str:
    """A notebook without cells."""
    return json.dumps({"cells": [], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5})


@pytest.mark.parametrize(
    "content",
    [
        strange(language_info={"name": "python"}, kernelspec=None),
        strange(language_info={"name": "python"}, kernelspec="python3"),
        strange(kernelspec={"name": ["python3"]}),
        strange().replace("[]", '[{"cell_type": "code", "source": "", "metadata": {"tags": null}}]'),
        "[" * 200_000,
    ],
    ids=range(5),
)
def test_a_strange_notebook_stops_no_other(planned: Planner, content: str) -> None:
    write_notebook(Path("good.ipynb"))
    Path("bad.ipynb").write_text(content)
    good, bad = planned("good.ipynb", "bad.ipynb").runs
    assert good.state == "queued"
    assert bad.problems == [
        "bad.ipynb is not a notebook: it is nested too deeply."
        if content[1] == "["
        else "bad.ipynb is not a notebook of format 4: its cells or its metadata are not as Jupyter writes them."
    ]


def text_of(name: str) -> str:
    return write_notebook(Path(name), "print('ü')").read_text()


@pytest.mark.parametrize(
    ("damaged", "said"),
    [
        (lambda text: "", "x y.ipynb is empty: expected a notebook."),
        (lambda text: text[: len(text) // 2], "x y.ipynb is cut off: it ends at line "),
        (lambda text: text[:-4], "x y.ipynb is cut off: it ends at line "),
        (
            lambda text: text.replace(' "cells"', '<<<<<<< HEAD\n "cells"', 1).replace(
                ' "metadata"', "=======\n>>>>>>> theirs\n"
            ),
            "x y.ipynb has a merge conflict of git at line 2: keep one side, with git checkout --ours 'x y.ipynb'",
        ),
        (lambda text: text.replace('"nbformat": 4', '"nbformat": 3'), "nbconvert --to notebook --inplace 'x y.ipynb'"),
        (
            lambda text: text.replace('"nbformat": 4', '"nbformat": 5'),
            "of format 5, and this version of Jupyter knows 4",
        ),
        (lambda text: text.replace("ü", "\udcfc"), "x y.ipynb is not UTF-8 (at byte "),
    ],
    ids=["empty", "half", "end", "conflict", "3", "5", "Latin-1"],
)
def test_a_damaged_notebook_is_told_by_its_damage(
    planned: Planner, damaged: Callable[[str], str], said: str, working: Path
) -> None:
    text = damaged(text_of("x y.ipynb"))
    Path("x y.ipynb").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError) as refused:
        planned("x y.ipynb")
    assert said in str(refused.value)
    assert "JupyterLab" not in str(refused.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_notebook_in_another_encoding_is_the_same_one(planned: Planner, encoding: str, working: Path) -> None:
    text = text_of("x.ipynb")
    plain = planned("x.ipynb")
    Path("x.ipynb").write_bytes(text.encode(encoding))
    other = planned("x.ipynb")
    assert other.runs[0].id == plain.runs[0].id
    assert other.notebooks[other.runs[0].id].data == text.encode()


def test_a_pipe_is_not_waited_for(planned: Planner, working: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("needs pipes that have names")
    os.mkfifo("x.ipynb")
    with pytest.raises(UserError, match="There is no notebook x.ipynb|not a regular file"):
        planned("x.ipynb")


def kernelspec(monkeypatch: pytest.MonkeyPatch, name: str, language: str) -> None:
    """A kernel that starts nothing, on JUPYTER_PATH."""
    place = Path("jupyter/kernels") / name
    place.mkdir(parents=True)
    spec = {"argv": ["false", "{connection_file}"], "display_name": name, "language": language}
    (place / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(Path("jupyter").resolve()))


def test_kernels_by_name(planned: Planner, working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernelspec(monkeypatch, "mine", "python")
    kernelspec(monkeypatch, "ir", "R")
    for name in ("python3", "Mine", "ir", "conda-env-torch-py"):
        write_notebook(Path(f"{name}.ipynb"), "1", kernel=name)
    found = {run.notebook: plan for plan in [planned("python3.ipynb"), planned("Mine.ipynb")] for run in plan.runs}
    assert [one.kernel for plan in found.values() for one in plan.notebooks.values()] == ["python3", "mine"]
    assert not [note for plan in found.values() for note in plan.notes]
    with pytest.raises(UserError, match="ir.ipynb: the kernel 'ir' is for R: expected one for Python"):
        planned("ir.ipynb")
    far = planned("conda-env-torch-py.ipynb")
    assert [one.kernel for one in far.notebooks.values()] == ["python3"]
    assert "which is not installed here: this environment's Python runs it. --kernel" in far.notes[0]

    chosen = make_plan(Request(("conda-env-torch-py.ipynb",), kernel="mine"))
    assert [one.kernel for one in chosen.notebooks.values()] == ["mine"]
    assert chosen.notes == []
    assert chosen.runs[0].id != far.runs[0].id
    with pytest.raises(UserError, match="--kernel mien: Unknown kernel 'mien': did you mean 'mine'"):
        make_plan(Request(("conda-env-torch-py.ipynb",), kernel="mien"))


@pytest.mark.parametrize("language", ["Python", "python", "IPython"])
def test_python_by_any_letters(planned: Planner, working: Path, language: str) -> None:
    content = json.loads(text_of("x.ipynb"))
    content["metadata"] = {"language_info": {"name": language}, "kernelspec": {"name": "python3", "language": language}}
    Path("x.ipynb").write_text(json.dumps(content))
    assert planned("x.ipynb").runs[0].state == "queued"


@pytest.mark.parametrize(
    "source", [f"SEED = {'-' * 100_000}1", "SEED = '\0'", "SEED = '\ud800'"], ids=["-", "0", "d800"]
)
def test_strange_parameters_stop_no_other(planned: Planner, source: str) -> None:
    write_notebook(Path("good.ipynb"))
    content = json.loads(Path("good.ipynb").read_text())
    content["cells"][0]["source"] = source
    Path("bad.ipynb").write_text(json.dumps(content))
    good, bad = planned("good.ipynb", "bad.ipynb", given=("SEED=1",)).runs
    assert good.state == "queued"
    assert bad.problems == ["bad.ipynb: the cell tagged parameters is not Python that can be read."]


@pytest.mark.parametrize(("name", "why"), [("loop", "Symlink loop"), ("x" * 300, "File name too long"), ("\0", "null")])
def test_a_path_that_leads_nowhere_stops_no_other(planned: Planner, name: str, why: str) -> None:
    write_notebook(Path("good.ipynb"))
    Path("loop.ipynb").symlink_to("loop.ipynb")
    good, bad = planned("good.ipynb", f"{name}.ipynb").runs
    assert good.state == "queued"
    assert " cannot be opened (" in bad.problems[0]
    assert why in bad.problems[0]


def test_parameters_that_nobody_sets_need_not_be_read(planned: Planner) -> None:
    write_notebook(Path("x.ipynb"), parameters="%matplotlib inline\nSEED = 0")
    assert planned("x.ipynb").runs[0].state == "queued"
    with pytest.raises(UserError, match="not Python .line 1"):
        planned("x.ipynb", seeds=2)


SHAPES = "PAIR = (1, 2)\nLAYERS = [1]\nNAMES = {'a': 1}\nSEED = eval('0')\nWORD = ''\nSOME = {1}\nRATE = 0.1"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("PAIR=(3,4)", "x: PAIR='(3,4)' does not fit: expected a list, as in PAIR=[1, 2]."),
        ("NAMES={1: 3}", "x: NAMES='{1: 3}' would change on its way into the notebook: expected finite numbers, tex"),
        ("LAYERS=[(1,2)]", "in place of tuples"),
        ("SEED=1e999", "expected finite numbers"),
        ("RATE=1e999", "expected a number, as in RATE=0.1."),
        ("SEED=(3,4)", "in place of tuples"),
        ("SOME={3}", "would change on its way"),
        (f"RATE=1{'0' * 400}", "expected a number, as in RATE=0.1."),
    ],
    ids=lambda text: text[:8],
)
def test_parameters_reach_the_notebook_as_they_are(planned: Planner, given: str, said: str) -> None:
    write_notebook(Path("x.ipynb"), parameters=SHAPES)
    with pytest.raises(UserError) as refused:
        planned("x.ipynb", given=(given,))
    assert said in str(refused.value)
    assert planned("x.ipynb", given=("PAIR=[3]", "NAMES={'b': [2]}", "SEED=[]")).runs[0].parameters == {
        "PAIR": [3], "NAMES": {"b": [2]}, "SEED": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sweep", "values"),
    [
        ("LAYERS=[1,2],[3,4],[]", [[1, 2], [3, 4], []]),
        ("SEED=[[1,2],'a,]'],'b,c',3", [[[1, 2], "a,]"], "b,c", 3]),
        (r"SEED='it\'s, so',1", ["it's, so", 1]),
        ("WORD=don't,won't", ["don't", "won't"]),
        ("WORD=(a,b", ["(a", "b"]),
        ("WORD=a),(b", ["a)", "(b"]),
    ],
)
def test_a_sweep_is_split_outside_of_brackets(planned: Planner, sweep: str, values: list[object]) -> None:
    write_notebook(Path("x.ipynb"), parameters=SHAPES)
    assert [list(run.parameters.values()) for run in planned("x.ipynb", sweeps=(sweep,)).runs] == [
        [one] for one in values
    ]


def test_a_run_is_what_goes_along_with_its_notebook_too(planned: Planner, working: Path) -> None:
    write_notebook(Path("x.ipynb"), "%matplotlib inline\nimport scoring\nopen('data.csv')\nopen('big/huge.bin')")
    ids = [planned("x.ipynb").runs[0].id]
    for name, text in [
        ("scoring.py", "from rules import one"),
        ("rules.py", "one = 1"),
        ("rules.py", "one = 2"),
        ("data.csv", "1"),
        ("data.csv", "2"),
    ]:
        Path(name).write_text(text)
        ids.append(planned("x.ipynb").runs[0].id)
    assert len(set(ids)) == len(ids)
    Path("other.py").write_text("not imported")
    assert planned("x.ipynb").runs[0].id == ids[-1]
    assert planned("x.ipynb").runs[0].hashes.keys() == {"notebook", "package", "beside"}


def test_the_working_folder(planned: Planner, working: Path) -> None:
    write_notebook(Path("here/x.ipynb"), "import helper\nopen('data.csv')")
    Path("here/data.csv").write_text("1")
    Path("there").mkdir()
    Path("there/helper.py").write_text("")
    plans = {cwd: make_plan(Request(("here/x.ipynb",), cwd=cwd)) for cwd in ("", "notebook", "there")}
    found = {cwd: next(iter(plan.notebooks.values())) for cwd, plan in plans.items()}
    assert {cwd: one.working for cwd, one in found.items()} == {
        "": None,
        "notebook": working / "here",
        "there": working / "there",
    }
    assert [list(one.files) for one in found.values()] == [["data.csv"], [], []]  # it is read where it is
    assert [list(one.modules) for one in found.values()] == [[], [], ["helper.py"]]
    assert len({plan.runs[0].id for plan in plans.values()}) == 3
    with pytest.raises(UserError, match="--cwd nowhere: there is no folder"):
        make_plan(Request(("here/x.ipynb",), cwd="nowhere"))


def test_types_that_only_running_would_tell_are_said(planned: Planner, working: Path) -> None:
    write_notebook(Path("x.ipynb"), parameters="THIRD = 1 / 3\nMADE = made()\nPROFILE = kit.profile()")
    assert planned("x.ipynb", given=("THIRD=1", "PROFILE=smoke")).notes == []
    assert planned("x.ipynb", given=("MADE=a",)).notes == [
        "x: types of what is computed there cannot be checked: MADE = made()."
    ]
    with pytest.raises(UserError, match="THIRD='abc' does not fit: expected a number, as in THIRD=1 / 3"):
        planned("x.ipynb", given=("THIRD=abc",))


def test_a_copy_in_another_folder_is_no_second_run(planned: Planner, working: Path) -> None:
    (working / "b").mkdir()
    shutil.copy(write_notebook(working / "a" / "x.ipynb", "import helper"), working / "b")
    plan = planned("a/x.ipynb", "b/x.ipynb", "a/x.ipynb")
    assert [run.state for run in plan.runs] == ["queued", "failed"]
    assert plan.runs[1].problems[0].startswith("b/x.ipynb is the same notebook as ")


def test_nothing_that_can_run_is_refused(planned: Planner) -> None:
    with pytest.raises(UserError, match="Unknown lesson '77'"):
        planned("77")
    with pytest.raises(UserError, match="Unknown profile 'smok': did you mean 'smoke'"):
        planned("00", profile="smok")
    with pytest.raises(UserError, match="--seeds -1: expected 1 or more"):
        planned("00", seeds=-1)


def test_lessons_by_their_numbers(planned: Planner) -> None:
    plan = planned("00", "07", given=("SEED=1",))
    assert [run.notebook for run in plan.runs] == ["00_a_thousand_layers", "07_building_deepnet"]
    assert plan.runs[0].source == "solutions/00_a_thousand_layers.ipynb"


def test_a_lesson_without_a_solution(planned: Planner, working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.course.places.SOLUTIONS", working)
    with pytest.raises(UserError, match="00_a_thousand_layers has no solution yet: make it with deepnet-edu build 00"):
        planned("00")


def test_a_batch_is_resumed_by_what_was_asked_for(planned: Planner, working: Path) -> None:
    write_notebook(Path("x.ipynb"), "1")
    folder = working / "out"
    plan = planned("x.ipynb", sweeps=("DEPTH=1,2",))
    take_folder(folder, resume=False, join=False)
    fill_folder(folder, plan, ["deepnet-edu", "run"])
    assert read_request(folder) == plan.request
    first, second = runs_of(folder, plan)
    first.state, first.audited, first.attempts = "done", True, 1
    first.write(folder / first.id)
    second.state, second.attempts = "failed", 2
    second.write(folder / second.id)

    more = make_plan(Request(("x.ipynb",), sweeps=("DEPTH=1,2,3",)))
    fill_folder(folder, more, [])
    assert [(run.state, run.attempts) for run in runs_of(folder, more)] == [("done", 1), ("queued", 2), ("queued", 0)]

    (folder / second.id / "status.json").write_text('{"version"')  # damaged: planned again
    write_notebook(Path("x.ipynb"), "2")  # and another notebook takes the place of all
    again = planned("x.ipynb", sweeps=("DEPTH=1,2",))
    fill_folder(folder, again, [])
    assert [run.state for run in runs_of(folder, again)] == ["queued", "queued"]
    assert {path.name for path in (folder / "earlier").iterdir()} == {run.id for run in more.runs}
    with pytest.raises(UserError, match="was begun with another version"):
        runs_of(folder, plan)


def test_a_folder_that_is_something_else(planned: Planner, working: Path) -> None:
    (working / "mine").mkdir()
    (working / "mine" / "thesis.txt").write_text("mine")
    for folder, said in [("mine", "is not an empty folder"), ("mine/thesis.txt", "is not an empty folder")]:
        with pytest.raises(UserError, match=said):
            take_folder(working / folder, resume=True, join=False)
    with pytest.raises(UserError, match="cannot be written .*choose another --out"):
        take_folder(working / "mine" / "thesis.txt" / "out", resume=False, join=False)
    with pytest.raises(UserError, match="holds no batch: begin one without --resume"):
        read_request(working / "mine")
    assert [path.name for path in (working / "mine").iterdir()] == ["thesis.txt"]


def test_a_thousand_runs_are_planned_and_resumed(planned: Planner, working: Path) -> None:
    write_notebook(Path("x.ipynb"), "1")
    plan = planned("x.ipynb", sweeps=(f"DEPTH={','.join(map(str, range(100)))}",), seeds=10)
    take_folder(working / "out", resume=False, join=False)
    fill_folder(working / "out", plan, [])
    fill_folder(working / "out", plan, [])
    assert len(runs_of(working / "out", plan)) == 1000


def test_a_status_is_read_as_it_was_written(working: Path) -> None:
    status = Status("x.1", "x", parameters={"DEPTH": 3}, metrics={"loss": [0.5, 1]}, problems=["ä"])
    status.write(working)
    assert Status.read(working) == status
    (working / "status.json").write_text(json.dumps({"version": 2}))
    with pytest.raises(UserError, match=r"status.json cannot be read .*--resume"):
        Status.read(working)


@pytest.mark.parametrize(
    ("request_", "runs"),
    [
        (Request(("x.ipynb",), seeds=10**8), "100,000,000"),
        (Request(("x.ipynb", "y.ipynb"), seeds=101, sweeps=("SEED=" + ",".join(map(str, range(100))),)), "20,200"),
    ],
)
def test_too_many_runs_are_refused_before_they_are_planned(request_: Request, runs: str) -> None:
    with pytest.raises(UserError, match=f"That makes {runs} runs, each with a folder of its own.*10,000 at most"):
        make_plan(request_)


def test_more_slots_than_the_memory_holds_are_refused() -> None:
    with pytest.raises(UserError, match=r"PyTorch in each of --slots 1,000,000 needs about 356,000.0 GB of memory"):
        make_slots("none", 10**6, [])


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.batch.slots.cores", lambda: 8)
    gpus = [Gpu(0, "0", "A"), Gpu(1, "1", "B")]
    assert [(slot.visible, slot.gpu, slot.device, slot.threads) for slot in make_slots("all", None, gpus)] == [
        ("0", 0, "A", 4),
        ("1", 1, "B", 4),
    ]
    assert [slot.gpu for slot in make_slots("1", None, gpus)] == [1]
    assert [slot.gpu for slot in make_slots("0,1", 3, gpus)] == [0, 1, 0]
    assert [(slot.visible, slot.device, slot.threads) for slot in make_slots("none", 3, gpus)] == [("", "CPU", 2)] * 3
    assert len(make_slots("all", None, [])) == 1
    for given, count, found, said in [
        ("2", None, gpus, "--gpus 2: there is no GPU '2' here; expected some of 0,1."),
        ("0", None, [], "this machine has none: leave --gpus out"),
        ("all", 0, gpus, "--slots 0: expected 1 or more."),
    ]:
        with pytest.raises(UserError, match=said):
            make_slots(given, count, found)


def test_a_clusters_choice_of_gpus_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deepnet_edu.batch.slots.ask_gpus", lambda _: [["0", "GPU-a", "A"], ["1", "GPU-b", "B"]])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_gpus() == [Gpu(0, "0", "A"), Gpu(1, "1", "B")]
    for visible, found in [
        ("1", [Gpu(1, "1", "B")]),
        ("GPU-b, GPU-a", [Gpu(1, "GPU-b", "B"), Gpu(0, "GPU-a", "A")]),
        ("MIG-c", [Gpu(0, "MIG-c", "a part of a GPU")]),
        ("", []),
        ("-1", []),
        ("7", []),
        ("1,7,0", [Gpu(1, "1", "B")]),
    ]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert find_gpus() == found


def nvidia_smi(where: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    (where / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (where / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(where), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no sh")
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo Failed to initialize NVML: mismatch; exit 18", "nvidia-smi fails: Failed to initialize NVML: mismatch"),
        ("echo no driver >&2; exit 9", "nvidia-smi fails: no driver"),
        ("exit 3", "nvidia-smi fails: it ended with status 3"),
        ("sleep 9", "nvidia-smi fails: it has not answered within 0.2 s"),
        ("echo 0, GPU-a, A", "1 GPU cannot be used: this PyTorch is built without CUDA (cpu)"),
    ],
)
def test_a_driver_that_fails_is_told_in_its_own_words(
    working: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    nvidia_smi(working, monkeypatch, script)
    monkeypatch.setattr("deepnet_edu.batch.slots.DRIVER_S", 0.2 if "sleep" in script else 20)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cpu")
    said: list[str] = []
    assert usable_gpus("all", said.append) == []
    assert [one.startswith(why) for one in said] == [True]
    assert usable_gpus("none", said.append) == []
    with pytest.raises(UserError) as refused:
        usable_gpus("0", said.append)
    assert str(refused.value).startswith(f"--gpus 0: {why}. Fix that, or run on the CPU")
    assert len(said) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no sh")
def test_gpus_that_can_be_used(working: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.13.0+cu130")
    said: list[str] = []
    nvidia_smi(working, monkeypatch, "echo 0, GPU-a, A")
    assert usable_gpus("all", said.append) == [Gpu(0, "0", "A")]
    nvidia_smi(working, monkeypatch, "echo No devices were found; exit 6")
    assert usable_gpus("all", said.append) == []
    assert said == []

"""What is refused before anything starts, what identifies a run, and how fast a thousand runs are planned."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deepnet_edu.batch.folder import fill_folder, read_request, runs_of, take_folder
from deepnet_edu.batch.plan import Plan, Request, make_plan
from deepnet_edu.batch.slots import Gpu, find_gpus, make_slots
from deepnet_edu.batch.state import Status
from deepnet_edu.messages import UserError
from tests.batch.conftest import write_notebook

Planner = Callable[..., Plan]


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
    write_notebook(Path("julia.ipynb"), "1", kernel="julia-1.9")
    content = json.loads(Path("good.ipynb").read_text())
    content["metadata"]["kernelspec"]["language"] = "R"
    Path("r.ipynb").write_text(json.dumps(content))
    write_notebook(working.parent / "outside.ipynb", "1")
    Path("link.ipynb").symlink_to(working.parent / "outside.ipynb")
    names = ["good", "bad", "list", "bare", "other", "broken", "julia", "r", "link", "none/here"]
    plan = planned(*(f"{name}.ipynb" for name in names), "../outside.ipynb", "77", given=("SEED=3",))
    assert [run.state for run in plan.runs] == ["queued", *["failed"] * 11]
    said = {run.notebook: run.problems[0] for run in plan.runs[1:]}
    assert said["bad"] == said["list"].replace("list", "bad")
    assert said["bad"] == "bad.ipynb is no notebook of format 4: open it in JupyterLab and save it again."
    assert said["bare"] == "bare has no parameters: give the cell that holds them the tag parameters."
    assert said["other"] == "other: Unknown parameter 'SEED': expected one of 'DEPTH'."
    assert said["broken"] == "broken.ipynb: the cell tagged parameters is no Python (line 1)."
    assert said["julia"].startswith("julia.ipynb: Unknown kernel 'julia-1.9'")
    assert said["r"] == "r.ipynb is a notebook for R: expected one for Python."
    assert "stands outside the working folder" in said["link"]
    assert "There is no notebook none/here.ipynb" in said["here"]
    assert "../outside.ipynb stands outside the working folder" in said["outside"]
    assert said["77"].startswith("Unknown lesson '77'")
    assert len({run.id for run in plan.runs}) == 12


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
    assert bad.problems == ["bad.ipynb is no notebook of format 4: open it in JupyterLab and save it again."]


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
    assert bad.problems == ["bad.ipynb: the cell tagged parameters is no Python that can be read."]


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
    with pytest.raises(UserError, match="no Python .line 1"):
        planned("x.ipynb", seeds=2)


SHAPES = "PAIR = (1, 2)\nLAYERS = [1]\nNAMES = {'a': 1}\nSEED = len('')\nWORD = ''\nSOME = {1}\nRATE = 0.1"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("PAIR=(3,4)", "x: PAIR='(3,4)' does not fit: expected a list, as in PAIR=[1, 2]."),
        ("NAMES={1: 3}", "x: NAMES='{1: 3}' would change on its way into the notebook: expected numbers, texts, lists"),
        ("LAYERS=[(1,2)]", "in place of tuples"),
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
    for folder, said in [("mine", "is no empty folder"), ("mine/thesis.txt", "is no empty folder")]:
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
    with pytest.raises(UserError, match=r"PyTorch in each of --slots 1,000,000 needs about 335,000.0 GB of memory"):
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
    ]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert find_gpus() == found

import warnings
from pathlib import Path

import matplotlib
import nbformat
import pytest
import torch

from deepnet_edu import progress
from deepnet_edu.course import kit, live
from deepnet_edu.course.places import RECORD_MIME
from deepnet_edu.figures import residual_blocks
from deepnet_edu.figures.style import line_style


def test_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPNET_EDU_PROFILE", raising=False)
    assert kit.profile() == "cpu"
    monkeypatch.setenv("DEEPNET_EDU_PROFILE", "smok")
    with pytest.raises(ValueError, match="Unknown DEEPNET_EDU_PROFILE 'smok': did you mean 'smoke'"):
        kit.profile()


def test_setup_is_repeatable() -> None:
    assert kit.setup(3, "cpu") == torch.device("cpu")
    first = torch.rand(1)
    kit.setup(3, "cpu")
    assert torch.equal(first, torch.rand(1))
    assert torch.tensor(1e-39).mul(1.0).item() == 0  # denormal numbers are flushed
    assert warnings.formatwarning("is off", UserWarning, "/tmp/ipykernel_1/2.py", 7) == "UserWarning: is off\n"
    assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"][0] == line_style("post_ln")["color"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_the_gpu_profile_does_not_run_on_the_cpu_in_silence() -> None:
    with pytest.raises(RuntimeError, match="no CUDA device: run deepnet-edu doctor"):
        kit.setup(0, "gpu")


def test_a_guess(capsys: pytest.CaptureFixture) -> None:
    guess = kit.Guess("Which?", ["A", "B"])
    guess.compare("B")
    guess._buttons.value = "A"
    guess.compare("B")
    guess._buttons.value = "B"
    guess.compare("B")
    assert capsys.readouterr().out.splitlines() == [
        "You have not guessed. It is: B",
        "You guessed: A. It is: B",
        "You guessed: B. Right: B",
    ]
    assert guess._repr_mimebundle_()["text/plain"] == "Which?\n( ) A\n( ) B"


def test_a_live_picture_is_redrawn_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, updates = [], []

    class Handle:
        def update(self, picture: object) -> None:
            updates.append(picture)

    monkeypatch.setattr(live, "display", lambda picture, display_id: shown.append(picture) or Handle())
    now = 100.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    picture = kit.LivePicture(residual_blocks, "blocks")
    picture.update()  # too soon: not drawn
    now += 1.0
    picture.update()
    now += 3.0
    picture.update()  # too soon
    picture.finish()
    assert (len(shown), len(updates)) == (1, 2)
    assert updates[-1].alt == "blocks"


def test_record_is_found_by_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    kit.record(loss=torch.tensor(0.25), depths=[12, 50], losses=[1 / 3], name="x", passed=True)
    losses = {"loss": 0.25, "depths": [12, 50], "losses": [1 / 3]}
    assert shown[0][RECORD_MIME] == {**losses, "name": "x", "passed": True}
    said = "recorded: loss = 0.25, depths = [12, 50], losses = [0.3333], name = x, passed = True"
    assert shown[0]["text/plain"] == said


@pytest.mark.parametrize(
    ("values", "said"), [({}, "nothing to record"), ({"loss": float("nan")}, "loss=nan cannot"), ({"f": len}, "f=")]
)
def test_what_cannot_be_recorded_is_refused(values: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        kit.record(**values)


def own_copy(folder: Path, *cells: str) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(notebook, folder / "01_residual_arithmetic.ipynb")


RIGHT = "def input_share(n, f, alpha):\n    return (alpha**2 / (alpha**2 + f)) ** n"


@pytest.mark.parametrize(
    ("cells", "whose"),
    [
        (["raise SystemExit", RIGHT], "your own, from 01_residual_arithmetic"),
        ([RIGHT.replace("** n", "* n")], "the reference answer"),
        (["def input_share(n, f, alpha):\n    raise NotImplementedError('input_share')"], "the reference answer"),
        (["def input_share(n, f"], "the reference answer"),
        ([RIGHT.replace("** n", "* n"), RIGHT], "your own, from 01_residual_arithmetic"),
        ([RIGHT, RIGHT.replace("** n", "* n")], "the reference answer"),
        ([], "the reference answer"),
    ],
)
def test_an_earlier_answer_is_taken_from_the_copy_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, cells: list[str], whose: str
) -> None:
    monkeypatch.chdir(tmp_path)
    own_copy(tmp_path, *cells)
    assert kit.earlier("input_share")(2, 1.0, 1.0) == 0.25
    assert capsys.readouterr().out.startswith(f"input_share: {whose}")


def test_an_earlier_answer_without_a_copy_or_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "01_residual_arithmetic.ipynb").write_text("not a notebook")
    assert kit.earlier("input_share")(1, 1.0, 1.0) == 0.5
    with pytest.raises(AttributeError, match="input_share"):
        kit.earlier("input_shore")


def test_course_progress_says_what_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.json"
    monkeypatch.setenv(progress.ENVIRONMENT, str(path))
    progress.note(path, "input_share", "tried")
    shown = kit.course_progress()
    assert "Next: input_share in lesson 01." in repr(shown)
    assert "<td>input_share</td>" in shown._repr_html_()
    monkeypatch.delenv(progress.ENVIRONMENT)
    assert "lesson 01" in repr(kit.course_progress())
    monkeypatch.setenv(progress.ENVIRONMENT, str(path))
    kit.setup(0, "cpu")
    assert "opened" in path.read_text()

"""The command line as a user types it."""

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from click.testing import Result
from typer.testing import CliRunner

from deepnet_edu.cli import app, main
from deepnet_edu.course import doctor
from deepnet_edu.course.places import ROOT, find_lesson, lesson_names
from deepnet_edu.messages import UserError
from deepnet_edu.progress import note


def look(name: str, findings: list[doctor.Finding]) -> doctor.Finding:
    return next(finding for finding in findings if finding.name.startswith(name))


COMMANDS = [command.callback.__name__ for command in app.registered_commands if command.callback]
SCRIPT = str(Path(sys.executable).with_name("deepnet-edu"))


class Ended(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Ended]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line from its entry point on, in this process: to start a Python and load torch takes seconds."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # which the entry point would set

    def go(*arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["deepnet-edu", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return go


@pytest.mark.parametrize("command", [[SCRIPT], [sys.executable, "-m", "deepnet_edu"]], ids=["script", "module"])
def test_the_command_is_installed(command: list[str]) -> None:
    result = subprocess.run([*command, "--help"], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Start with: deepnet-edu lab" in " ".join(result.stdout.split())


def test_every_command_has_help_with_an_example_and_loads_no_torch_for_it() -> None:
    """In a Python that has loaded nothing before."""
    code = (
        "import sys\nfrom deepnet_edu.cli import main\n"
        "for name in sys.argv[1:]:\n"
        "    sys.argv = ['deepnet-edu', name, '--help']\n"
        "    try: main()\n"
        "    except SystemExit as ended: print('ended', ended.code or 0, 'torch' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    *pages, rest = result.stdout.split("ended 0 False\n")
    assert rest == ""
    for name, page in zip(COMMANDS, pages, strict=True):
        assert f"Example: deepnet-edu {name}" in page


def test_doctor_finds_this_machine_ready(run: Run, tmp_path: Path) -> None:
    result = run("doctor", "--json", "--workspace", str(tmp_path))
    assert result.returncode == 0, result.stdout
    report = json.loads(result.stdout)
    assert report["ready"]
    names = [finding["name"].split()[0] for finding in report["findings"]]
    assert names == ["Python", "PyTorch", "Compiled", "Memory", "Disk", "Versions", "JupyterLab", "Workspace"]
    assert all(finding["mend"] for finding in report["findings"] if finding["status"] != "ok")
    spoken = run("doctor", "--workspace", str(tmp_path))
    assert spoken.returncode == 0
    assert "Lessons can run: deepnet-edu lab" in spoken.stdout
    assert not any(tmp_path.iterdir())


def test_doctor_names_the_command_that_mends_a_workspace(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("doctor", "--workspace", str(tmp_path / "file" / "work"))
    assert result.returncode == 1
    assert "cannot be written: Not a directory" in result.stdout
    assert "fix it with: deepnet-edu lab --workspace FOLDER" in result.stdout


def test_doctor_warns_of_untested_versions_and_goes_on(tmp_path: Path) -> None:
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("numpy==0.1\nnot-installed==1\n")
    finding = look("Versions", doctor.examine(tmp_path, constraints))
    assert finding.status == "warning"
    assert "(tested: 0.1)" in finding.found
    assert "not-installed" not in finding.found


@pytest.mark.parametrize(
    ("name", "replacement", "status"),
    [("sysconf", lambda _: 1000, "warning"), ("sysconf", lambda _: 10**6, "ok")],
)
def test_doctor_looks_at_memory(monkeypatch: pytest.MonkeyPatch, name: str, replacement: object, status: str) -> None:
    monkeypatch.setattr(doctor.os, name, replacement)
    assert doctor._memory().status == status


def test_doctor_looks_at_python_torch_and_jupyterlab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.4")
    assert doctor._python().status == "problem"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert doctor._torch().status == "problem"

    def missing(name: str) -> str:
        raise doctor.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", missing)
    assert doctor._jupyterlab().status == "problem"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("arguments", [["models", "--residuals"], ["plan", "small_1000", "--json"], ["--help"]])
def test_a_full_disk_behind_what_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Whether Python notices at once or at its end."""
    monkeypatch.setattr(sys, "argv", ["deepnet-edu", *arguments])
    with open("/dev/full", "w") as disk:
        monkeypatch.setattr(sys, "stdout", disk)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "What this prints cannot be written (No space left on device).\n"


def test_ctrl_c_before_there_is_a_command_is_one_word(tmp_path: Path) -> None:
    """It arrives while the command line is imported, and later outside of every command."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    found = subprocess.run(
        [sys.executable, "-m", "deepnet_edu", "doctor"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (found.returncode, found.stderr) == (130, "Stopped.\n")


def test_ctrl_c_outside_of_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["deepnet_edu.cli.app"], "app", stopped)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "Stopped.\n")


def test_a_lesson_that_does_not_exist(run: Run) -> None:
    result = run("lab", "00_a_thousand_layer")
    assert result.returncode == 1
    assert result.stderr.strip() == "Unknown lesson '00_a_thousand_layer': did you mean '00_a_thousand_layers'?"


def test_a_workspace_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = run("lab", "--workspace", str(tmp_path / "file" / "work"))
    assert result.returncode == 1
    assert "cannot be written" in result.stderr
    assert "Traceback" not in result.stderr


def test_progress(run: Run, tmp_path: Path) -> None:
    note(tmp_path / ".progress.json", "input_share", "done")
    note(tmp_path / ".progress.json", "cloned_growth", "tried")
    result = run("progress", "--workspace", str(tmp_path))
    assert (
        result.stdout.splitlines()[0]
        == "lesson 01 ████░░░░░░░░░░░░░░░░ 1 of 5 done, 1 tried, 3 open, next: cloned_growth"
    )
    lesson, *_ = json.loads(run("progress", "--workspace", str(tmp_path), "--json").stdout)
    assert lesson["done"] == ["input_share"]
    assert lesson["open"] == ["variance_by_depth", "residual_variance", "damped_variance"]


def test_lessons_by_number_name_or_file() -> None:
    assert lesson_names()[0] == "00_a_thousand_layers"
    assert {find_lesson(given) for given in ("00", "00_a_thousand_layers", "00_a_thousand_layers.ipynb")} == {
        "00_a_thousand_layers"
    }
    with pytest.raises(UserError, match="expected one of"):
        find_lesson("../../etc/passwd")


def test_notebooks_are_up_to_date_with_their_sources(run: Run) -> None:
    result = run("build", "--check")
    assert result.returncode == 0, result.stderr


def test_the_readme_names_commands_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for command in ("doctor", "lab", "progress", "run", "build", "train"):
        assert f"deepnet-edu {command}" in readme
    makefile = (ROOT / "Makefile").read_text()
    for target in ("lab", "test", "clean"):
        assert f"make {target}" in readme
        assert f"\n{target}:" in makefile


def test_doctor_misses_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"torch", "jupyterlab", "papermill", "nbval"} <= set(doctor._required())
    assert "pytest" not in doctor._required()
    monkeypatch.setattr(doctor, "_installed", lambda name: "" if name == "papermill" else "1")
    finding = look("Versions", doctor.examine(tmp_path))
    assert (finding.status, finding.found) == ("problem", "not installed: papermill")
    assert finding.mend == "python install.py --again"


def test_doctor_prints_brackets_as_they_are(run: Run, tmp_path: Path) -> None:
    assert "my[draft]x: can be written" in run("doctor", "--workspace", str(tmp_path / "my[draft]x")).stdout


@pytest.mark.fast
def test_plan_says_where_memory_goes(run: Run, tmp_path: Path) -> None:
    result = run("plan", "small_1000", "--checkpoint-every", "1", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    parts = ("process", "weights", "gradients", "optimizer", "activations", "temporaries", "objects")
    assert found["total"] == sum(found[part] for part in parts)
    assert found["parameters"] == 50_004_480
    spoken = run("plan", "small_1000")
    assert "50,004,480 parameters, DeepNorm, by the fast path, float32." in spoken.stdout
    gpu = run(
        "plan", "small_1000", "--precision", "autocast", "--device", "cuda", "--checkpoint-every", "auto", "--json"
    )
    assert json.loads(gpu.stdout)["process"] == 0
    how = ("--precision", "autocast", "--device", "cuda", "--checkpoint-every", "auto", "--sequences", "64")
    fewer = run("plan", "small_1000", *how, "--keep-attention", "--recompute", "auto", "--memory", "6", "--json")
    counted = json.loads(fewer.stdout)
    assert 0 < counted["recompute"] < 1000
    assert 5.3e9 < counted["total"] <= 0.9 * 6e9
    said = run("plan", "small_1000", *how, "--recompute", "300").stdout
    assert "Of each stack the lowest 300 layers are computed again" in said
    for wrong, message in (
        (["small_999"], "did you mean 'small_1000'"),
        (["small_1000", "--precision", "float"], "did you mean 'float64'"),
        (["small_1000", "--checkpoint-every", "sqrt"], "expected a whole number of layers, 0 or more, or 'auto'"),
        ([str(tmp_path / "none.json")], "holds no shape"),
        (["small_1000", "--recompute", "3"], "recompute=3 says how many layers have checkpoints, and there are none"),
        (["small_1000", "--recompute", "auto"], "give both, for example --memory 141"),
    ):
        with pytest.raises(UserError) as refused:
            app(["plan", *wrong], standalone_mode=False)
        assert message in str(refused.value)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("probe --layers 1000000000", "A probe with --layers 1,000,000,000, --d-model 64 and --tokens 32 needs about"),
        ("probe --layers 100000 --d-model 8192", "GB of memory, and this machine has"),
        ("probe --tokens 1000000000000", "--tokens '1000000000000': expected a whole number from 2 to 1,000,000,000."),
        ("plan small_1000 --sequences 1" + "0" * 40, "expected a whole number from 1 to 1,000,000,000."),
        ("run --seeds 100000000", "runs, each with a folder of its own"),
        ("run 01 --slots 1000000", "--slots 1,000,000 needs about 356,000.0 GB of memory"),
        ("lab --workspace /dev/null", "--workspace /dev/null is not a folder"),
        ("workers tcp://127.0.0.1:8786 --host 192.0.2.1", "--host '192.0.2.1': this machine cannot listen there"),
    ],
)
def test_what_no_machine_can_do_is_refused_before_it_begins(line: str, said: str) -> None:
    result = CliRunner().invoke(app, line.split())
    assert isinstance(result.exception, UserError), result
    assert said in str(result.exception)


def test_a_line_that_cannot_be_read_is_one_line_and_says_where_help_is() -> None:
    result = CliRunner().invoke(app, ["probe", "--layer" + "s" * 5000, "3"])
    assert result.exit_code == 2
    assert len(result.stderr) < 300
    assert result.stderr.startswith("Error: No such option: --layer")
    assert "probe --help" in result.stderr
    assert result.stderr.count("\n") == 1


def test_bench_runs_a_benchmark_of_the_clone(run: Run) -> None:
    result = run("bench", "depth", "--help")
    assert result.returncode == 0
    refused = run("bench", "deth")
    assert refused.returncode == 1
    assert "did you mean 'depth'" in refused.stderr


SMALL = ["--set", "decoder_layers=4", "--set", "steps=2"]


def here(*arguments: str) -> Result:
    """The same command in this process, since starting one takes longer than such a run."""
    return CliRunner().invoke(app, ["train", *arguments])


def refused(*arguments: str) -> str:
    result = here(*arguments)
    assert isinstance(result.exception, UserError), result
    return str(result.exception)


def test_train_keeps_a_run_and_goes_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = here("laptop-1000", *SMALL)
    assert first.exit_code == 0, first.output
    assert "2 steps, 1,024 tokens: runs/laptop-1000\nLoss of the last steps: 5." in first.output
    assert " nats a token, beside 3." in first.output
    kept = Path("runs/laptop-1000/run.toml")
    before = kept.read_text()
    assert "decoder_layers = 4" in before
    assert "resume it, deepnet-edu train runs/laptop-1000/run.toml --resume" in refused("laptop-1000", *SMALL)
    assert "was begun with model.d_ff=256, and now it is 128" in refused(
        "laptop-1000", *SMALL, "--set", "d_ff=128", "--resume"
    )
    assert kept.read_text() == before
    said = first.stdout.splitlines()[-2:]
    assert here("laptop-1000", *SMALL, "--resume").stdout.splitlines()[-2:] == said  # nothing is left to do
    more = here(str(kept), "--set", "steps=3", "--resume", "--json")
    assert more.exit_code == 0, more.output
    result = json.loads(more.stdout)
    assert (result["steps"], result["tokens"], result["stopped"]) == (3, 3 * 512, False)
    assert "steps = 3" in kept.read_text()


def test_train_never_writes_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert "is not an empty folder" in refused("laptop-1000", *SMALL, "--out", str(tmp_path))
    assert "is not an empty folder" in refused("laptop-1000", *SMALL, "--out", str(tmp_path / "mine.txt"))
    assert "holds no run to resume" in refused("laptop-1000", *SMALL, "--out", str(tmp_path), "--resume")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_train_keeps_the_byte_pairs_that_it_learned(tmp_path: Path) -> None:
    own = [*SMALL, "--set", "tokenizer=bpe", "--set", "vocab_size=280", "--out", str(tmp_path / "run")]
    assert here("laptop-1000", *own).exit_code == 0
    learned = (tmp_path / "run" / "tokenizer.json").read_text()
    assert here("laptop-1000", *own, "--set", "steps=3", "--resume").exit_code == 0
    assert (tmp_path / "run" / "tokenizer.json").read_text() == learned


@pytest.mark.fast
def test_train_says_what_a_run_needs_and_loads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = json.loads(here("wmt17-18x18", "--dry-run", "--json").stdout)
    assert found["run"]["train"]["steps"] == found["steps"] == 100_000
    assert found["tokens_per_step"] == 128 * 4096
    assert found["parameters"]["all"] == found["memory"]["parameters"]
    spoken = here("laptop-1000", "--dry-run", "--device", "cpu")
    assert spoken.exit_code == 0, spoken.exception
    assert "50,004,480 parameters (ends 20,480, decoder 49,984,000), DeepNorm, by the fast path." in spoken.output
    assert "200 steps of 512 tokens, 102,400 in all." in spoken.output
    assert "floating point operations a step" in spoken.output
    assert not any(tmp_path.iterdir())


def test_train_says_what_each_rank_of_a_plan_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = json.loads(here("gpu-1000", "--dry-run", "--plan", "pipeline=4", "--device", "cpu", "--json").stdout)
    assert found["plan"] == "pipeline=4"
    assert sum(rank["memory"]["parameters"] for rank in found["ranks"]) == 3_160_903_680
    assert all(rank["sends"]["stream"] == rank["sends"]["total"] > 0 for rank in found["ranks"])
    own = ["laptop-1000", "--dry-run", "--gpus", "2", "--device", "cpu"]
    spoken = here(*own, "--plan", "auto")
    assert spoken.exit_code == 0, spoken.exception
    lines = [line.split() for line in spoken.output.splitlines()]
    assert spoken.output.startswith("data=2: Copies fit: a GPU needs ")
    assert ["memory,", "MB", "each", "rank"] in lines
    assert ["gradients", "200.0"] in lines  # held: 4 bytes of each of 50,004,480 numbers; sent: 2 · 1/2 of them
    assert lines.count(["gradients", "200.0"]) == 2
    assert "50,004,480 parameters on a rank at most, DeepNorm." in spoken.output
    assert "needs data=1 × shard=1 × pipeline=4 = 4 processes, and there are 2" in refused(*own, "--plan", "pipeline=4")
    assert not any(tmp_path.iterdir())


def test_train_refuses_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "did you mean 'laptop-1000'" in refused("laptop-100")
    assert "Unknown key 'step': did you mean 'steps'?" in refused("laptop-1000", "--set", "step=3")
    assert "--device gpu: expected cpu, cuda or auto." in refused("laptop-1000", "--device", "gpu")
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "PyTorch finds no GPU here; use --device cpu" in refused("laptop-1000", "--device", "cuda")
    assert here("laptop-1000", *SMALL).exit_code == 0  # what was refused has left nothing in the way
    monkeypatch.setitem(sys.modules, "datasets", None)
    small = [part for key in ("encoder_layers", "decoder_layers") for part in ("--set", f"{key}=1")]
    assert "pip install 'deepnet-edu[hub]'" in refused("wmt17-18x18", *small, "--out", "hub")
    assert not Path("hub").exists()


def test_train_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: str | bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr("deepnet_edu.experiment.config.write_atomic", full)
        sentence = refused("laptop-1000", *SMALL)
    assert sentence.startswith("runs/laptop-1000/run.toml: No space left on device. What was saved before")
    assert "run the same again" in sentence
    assert here("laptop-1000", *SMALL).exit_code == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no SIGTERM that a process could answer")
def test_train_is_stopped_and_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ["--set", "decoder_layers=4", "--set", "steps=1000000", "--set", "save_every=5", "--out", "my run"]
    command = [SCRIPT, "train", "laptop-1000", *own]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        saved = tmp_path / "my run" / "checkpoints"
        while process.poll() is None and not list(saved.glob("step-*")):
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    go_on = shlex.split(said.split("Resume with: ")[1])
    assert go_on == ["deepnet-edu", "train", "my run/run.toml", "--resume"]
    done = int(said.split()[2])
    assert (saved / f"step-{done:08}").is_dir()
    monkeypatch.chdir(tmp_path)
    again = run(*go_on[1:], "--set", f"steps={done + 1}", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["tokens"] == 512 * (done + 1)

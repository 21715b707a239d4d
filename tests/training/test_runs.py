"""Runs from presets, files and key=value; what they read; what they are said to need."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from deepnet_edu.data import PackedText, PythonDocs, Translations
from deepnet_edu.experiment.config import FILE, TABLES, Experiment, check_same, find_run, keep
from deepnet_edu.experiment.data import DataConfig, make_task
from deepnet_edu.experiment.forecast import forecast
from deepnet_edu.experiment.presets import OPUS_100, OPUS_STEPS, PRESETS
from deepnet_edu.messages import UserError
from deepnet_edu.model import IGNORED, build_model
from deepnet_edu.planning import count_operations, count_parameters, training_memory
from deepnet_edu.training import TrainConfig, train

ROOT = Path(__file__).parents[2]
SMALL = ("decoder_layers=2", "steps=2", "save_every=0")


def pairs(path: Path, count: int = 40) -> Path:
    rows = [{"translation": {"de": f"Satz {i} ist da", "en": f"sentence {i} is here"}} for i in range(count)]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_no_two_tables_have_a_key_in_common() -> None:
    names = [field.name for cls in TABLES.values() for field in fields(cls)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_run_and_comes_back_from_its_file(name: str, tmp_path: Path) -> None:
    run = find_run(name)
    keep(run, tmp_path)
    assert find_run(str(tmp_path / FILE)) == run
    assert PRESETS[name].source


@pytest.mark.parametrize("name", [name for name in PRESETS if "x" in name])
def test_the_papers_runs_have_its_tables_values(name: str) -> None:
    """arXiv 2203.00555, Tables 4 to 8."""
    run, (which, depth) = find_run(name), name.split("-")
    layers = int(depth.split("x")[0])
    assert (run.model.encoder_layers, run.model.decoder_layers) == (layers, layers)
    assert (run.model.d_model, run.model.d_ff, run.model.n_heads, run.model.residual) == (512, 2048, 8, "deepnorm")
    assert (run.train.betas, run.train.epsilon, run.train.schedule) == ((0.9, 0.98), 1e-8, "inverse_sqrt")
    assert (run.train.warmup, run.train.warmup_start, run.train.label_smoothing, run.train.clip) == (4000, 1e-7, 0.1, 0)
    assert run.train.accumulate * run.data.max_tokens == 128 * 4096
    own = (run.train.learning_rate, run.train.steps, run.model.dropout, run.train.weight_decay)
    assert own == ((1.5e-3, 100_000, 0.4, 1e-4) if which == "wmt17" else (5e-4, OPUS_STEPS, 0.1, 0))


def test_opus_100_has_99_languages_beside_english() -> None:
    run = find_run("opus100-500x500")
    assert len(run.data.directions) == 2 * len(OPUS_100.split()) == 198
    assert len(run.data.languages) == 100
    assert count_parameters(run.model)["all"] == pytest.approx(3.8e9, rel=0.01)  # Table 2
    assert count_parameters(find_run("opus100-100x100").model)["all"] == pytest.approx(863e6, rel=0.01)


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("steps=50", "train", "steps", 50),
        ("train.steps = 50", "train", "steps", 50),
        ("learning_rate=1", "train", "learning_rate", 1.0),
        ("betas=[0.9, 0.98]", "train", "betas", (0.9, 0.98)),
        ("checkpoint_every=auto", "train", "checkpoint_every", "auto"),
        ("checkpoint_every=3", "train", "checkpoint_every", 3),
        ("offload=true", "train", "offload", True),
        ("residual=pre_ln", "model", "residual", "pre_ln"),
        ('residual="pre_ln"', "model", "residual", "pre_ln"),
        ("data.length=32", "data", "length", 32),
    ],
)
def test_a_value_is_that_of_its_field(override: str, table: str, key: str, value: object) -> None:
    found = getattr(getattr(find_run("laptop-1000", [override]), table), key)
    assert found == value
    assert type(found) is type(value)


def test_the_last_value_counts() -> None:
    assert find_run("laptop-1000", ["steps=3", "train.steps=4"]).train.steps == 4
    assert find_run("laptop-1000", ["source=text", "name=12", "vocab_size=300"]).data.name == "12"
    run = find_run("laptop-1000", ["alpha=2", "not_the_paper=true"])
    assert (run.model.alpha, run.model.beta) == (2.0, None)
    assert "beta" not in run.to_dict()["model"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["step=3"], "Unknown key 'step': did you mean 'steps'?"),
        (["data.lenght=3"], "Unknown key 'data.lenght': did you mean 'data.length'?"),
        (["zzz=3"], "Unknown key 'zzz': the keys are those of ModelConfig, TrainConfig and DataConfig."),
        (["steps"], "--set 'steps': expected key=value, for example --set steps=50."),
        (["steps=many"], "train.steps='many': expected a whole number."),
        (["steps=1.5"], "train.steps=1.5: expected a whole number."),
        (["steps=true"], "train.steps=True: expected a whole number."),
        (["learning_rate=fast"], "train.learning_rate='fast': expected a number."),
        (["offload=yes"], "train.offload='yes': expected true or false."),
        (["betas=0.9"], "train.betas=0.9: expected a list, for example [0.9, 0.98]."),
        (["directions=[1]"], "data.directions=1: expected text."),
        (["steps=0"], "steps=0: expected a whole number, 1 or more."),
        (["residual=deepnrom"], "Unknown residual 'deepnrom': did you mean 'deepnorm'?"),
        (["schedule=cosine", "steps=30"], "warmup=40 of steps=30: nothing is left for schedule='cosine'."),
        (["source=web"], "Unknown source 'web'"),
        (["name=wmt17-en-de"], "name='wmt17-en-de': source='python_docs' has no name."),
        (["source=text"], "source='text' needs the name of a set, or a path"),
        (["directions=[\"en-de\"]"], "source='python_docs' has no directions."),
        (["max_tokens=100"], "max_tokens=100: source='python_docs' has no max_tokens."),
        (["parameters=stack", "residual=none", "decoder_layers=0"], "there is no stack to train."),
        (["tokenizer=words"], "Unknown tokenizer 'words'"),
        (["sequences=0"], "sequences=0: expected a whole number, 1 or more."),
        (["length=65"], "data.length=65 is more than model.max_length=64: use --set max_length=65"),
        (["vocab_size=100"], "model.vocab_size=100: Python's documentation by bytes has 128 tokens or more."),
        (
            ["source=translation", "name=x", "directions=[\"en-de\"]"],
            "data.source='translation' makes batches for task='translation', and model.task='lm'",
        ),
        (["source=translation", "name=x"], "directions=[]: expected, for example, ['en-de']."),
    ],
)  # fmt: skip
def test_a_wrong_value_is_one_sentence(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError) as error:
        find_run("laptop-1000", overrides)
    assert str(error.value).startswith(message) or message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[model]\nstep = 3\n", "[model]: Unknown key 'step'"),
        ("[trian]\nsteps = 3\n", "Unknown table 'trian': did you mean 'train'?"),
        ("model = 3\n", "model=3: expected a table, [model]"),
        ("[model\n", "cannot be read: it is not TOML"),
        ("[train]\nsteps = 3\n", "[model] has no architecture: add architecture = …"),
        (None, "cannot be read: No such file or directory. A preset is named without .toml: laptop-1000"),
    ],
)
def test_a_wrong_file_is_one_sentence(content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError) as error:
        find_run(str(path))
    assert message in str(error.value)


def test_an_unknown_preset() -> None:
    with pytest.raises(UserError, match="Unknown preset 'laptop-100': did you mean 'laptop-1000'"):
        find_run("laptop-100")


def test_another_run_does_not_go_on(tmp_path: Path) -> None:
    keep(find_run("laptop-1000"), tmp_path)
    check_same(find_run("laptop-1000", ["steps=400", "profile_every=10", "keep=1"]), tmp_path)
    for key, before, now in (
        ("model.d_model", 64, 32),
        ("train.learning_rate", 0.0005, 0.002),
        ("data.length", 64, 32),
    ):
        with pytest.raises(UserError, match=f"was begun with {key}={before}, and now it is {now}"):
            check_same(find_run("laptop-1000", [f"{key}={now}"]), tmp_path)
    keep(find_run("laptop-1000", ["schedule=cosine"]), tmp_path)
    with pytest.raises(UserError, match="was begun with train.steps=200, and now it is 400"):
        check_same(find_run("laptop-1000", ["schedule=cosine", "steps=400"]), tmp_path)


def test_the_laptops_batches_are_bytes_of_the_documentation() -> None:
    run = find_run("laptop-1000", SMALL)
    task = make_task(run.data, run.model.vocab_size)
    assert isinstance(task, PythonDocs)
    assert task.batch(torch.Generator().manual_seed(0)).inputs.shape == run.data.batch_shape == (8, 64)
    history = train(build_model(run.model), task, run.train, progress=False)
    assert history.tokens[-1] == forecast(run).tokens == 2 * 8 * 64


def test_byte_pairs_fill_the_vocabulary_and_can_be_kept(tmp_path: Path) -> None:
    data = DataConfig(tokenizer="bpe", sequences=2, length=16)
    task = make_task(data, 300)
    assert isinstance(task, PackedText)
    assert task.vocab_size == 300
    task.tokenizer.save(tmp_path / "kept.json")
    again = make_task(data, 300, tokenizer=tmp_path / "kept.json")
    named = make_task(replace(data, tokenizer=str(tmp_path / "kept.json")), 300)
    batch = task.batch(torch.Generator())
    for other in (again, named):
        assert torch.equal(other.batch(torch.Generator()).inputs, batch.inputs)
    with pytest.raises(ValueError, match="The tokenizer has 300 tokens and the model vocab_size=280"):
        make_task(replace(data, tokenizer=str(tmp_path / "kept.json")), 280)
    other = make_task(data, 300, seed=1).batch(torch.Generator())
    assert not torch.equal(other.inputs, batch.inputs)


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_translations_into_two_languages_are_tagged(tokenizer: str, tmp_path: Path) -> None:
    path = pairs(tmp_path / "pairs.json")
    data = DataConfig("translation", str(path), directions=("en-de", "de-en"), tokenizer=tokenizer, length=40)
    assert data.languages == ["de", "en"]
    task = make_task(replace(data, max_tokens=400), 300)
    assert isinstance(task, Translations)
    batch = task.batch(torch.Generator())
    assert set(batch.inputs[:, 0].tolist()) <= {task.tokenizer.tag("de"), task.tokenizer.tag("en")}
    assert batch.inputs.numel() <= 400
    assert (batch.targets != IGNORED).any()
    alone = make_task(replace(data, directions=("en-de",), limit=3), 300)
    assert isinstance(alone, Translations)
    assert alone.tokenizer.languages == ()


def test_text_of_a_file(tmp_path: Path) -> None:
    documents = [f"Document number {i}." for i in range(50)]
    (tmp_path / "text.jsonl").write_text("\n".join(json.dumps({"body": text}) for text in documents))
    data = DataConfig("text", str(tmp_path / "text.jsonl"), column="body", length=8)
    task = make_task(data, 300)
    assert isinstance(task, PackedText)
    assert task.tokenizer.decode(task.batch(torch.Generator()).inputs[0].tolist()) in "".join(documents)
    with pytest.raises(UserError, match="Unknown column 'text'"):
        make_task(replace(data, column="text"), 300)


def test_a_paper_run_in_small_trains(tmp_path: Path) -> None:
    small = [f"name={pairs(tmp_path / 'pairs.json')}", "encoder_layers=1", "decoder_layers=1", "d_model=16", "d_ff=32"]
    small += ["n_heads=2", "vocab_size=300", "max_tokens=200", "length=40", "accumulate=2", "steps=2", "save_every=0"]
    run = find_run("wmt17-18x18", small)
    history = train(build_model(run.model), make_task(run.data, 300), run.train, progress=False)
    assert history.learning_rate[0] == pytest.approx(1e-7 + (1.5e-3 - 1e-7) / 4000)
    assert len(history.loss) == 2


def test_a_forecast_counts_what_planning_counts() -> None:
    run = find_run("laptop-1000", ["accumulate=3", "checkpoint_every=auto"])
    found = forecast(run)
    assert found.parameters == count_parameters(run.model)
    assert found.memory == training_memory(run.model, 8, 64, checkpoint_every=32).to_dict()
    counted = count_operations(run.model, 8, 64, checkpoint_every=32)
    assert found.again_per_step == 3 * (counted.again + counted.attention_again) > 0
    assert found.operations_per_step == 3 * (counted.products + counted.attention) + found.again_per_step
    assert found.tokens == 200 * found.tokens_per_step == 200 * 3 * 8 * 64
    fewer = forecast(find_run("laptop-1000", ["checkpoint_every=auto", "recompute=400", "keep_attention=true"]))
    how = {"checkpoint_every": 32, "recompute": 400, "keep_attention": True, "path": "plain"}
    assert fewer.memory == training_memory(run.model, 8, 64, **how).to_dict()
    assert fewer.again_per_step == count_operations(run.model, 8, 64, **how).again
    assert (found.peak, found.days) == (None, None)
    assert replace(found, peak=found.operations_per_step).days == pytest.approx(200 / 86_400)  # a step a second
    assert found.to_dict()["days"] is None


def test_the_page_says_what_presets_are() -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = [
        line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `") and line.count("|") == 7
    ]
    assert [row[0].strip("`") for row in rows] == list(PRESETS)
    for name, _, parameters, steps, tokens, _ in rows:
        run = find_run(name.strip("`"))
        sequences, length = run.data.batch_shape
        found = (count_parameters(run.model)["all"], run.train.steps, sequences * length * run.train.accumulate)
        assert (parameters, steps, tokens) == tuple(f"{number:,}" for number in found)


def test_the_pages_own_run_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (tmp_path / "my_run.toml").write_text(page.split("```toml")[1].split("```")[0])
    assert find_run(str(tmp_path / "my_run.toml")).data.name == "my_text.jsonl"


@pytest.mark.parametrize("arm", [["parameters=ends"], ["residual=none", "decoder_layers=0"], ["residual=post_ln"]])
def test_the_laptops_arms(arm: list[str]) -> None:
    run = find_run("laptop-1000", [*SMALL[1:], *arm])
    assert forecast(run).operations


def test_a_forecast_of_a_gpu_knows_its_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "NVIDIA H200")
    run = find_run("wmt17-18x18", ["encoder_layers=4", "decoder_layers=4", "d_model=64", "n_heads=4", "d_ff=128"])
    found = forecast(run, "cuda")
    assert (found.device, found.peak, found.memory["process"]) == ("NVIDIA H200", 989e12, 0)
    assert found.days == pytest.approx(found.operations / 989e12 / 86_400)  # type: ignore[operator]
    assert (
        found.memory["total"]
        == training_memory(
            run.model, 16, 256, checkpoint_every=2, path="plain", precision="autocast", device="cuda"
        ).total
    )


def test_a_forecast_without_counted_operations() -> None:
    found = forecast(find_run("laptop-1000", ["residual=dlcl", "decoder_layers=4"]))
    assert (found.operations_per_step, found.operations, found.days) == (None, None, None)


def test_a_run_of_ones_own() -> None:
    model, data = find_run("laptop-1000").model, DataConfig()
    assert Experiment(model, TrainConfig(steps=1), data).data == data
    with pytest.raises(ValueError, match="data.length=128 is more than"):
        Experiment(model, TrainConfig(steps=1), replace(data, length=128))


@pytest.mark.parametrize("value", ["[" * 10_000, "9" * 5000, "{a=" * 10_000], ids=["lists", "digits", "tables"])
def test_a_value_without_end_is_one_sentence(value: str) -> None:
    with pytest.raises(UserError) as refused:
        find_run("laptop-1000", [f"steps={value}"])
    assert "steps" in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_line_break_does_not_hide_another_value() -> None:
    with pytest.raises(UserError, match="nothing=2': expected a whole number"):
        find_run("laptop-1000", ["steps=1\nnothing=2"])
    with pytest.raises(UserError, match="learning_rate=a number of very many digits: expected a number"):
        find_run("laptop-1000", ["learning_rate=1" + "0" * 400])

"""From a file, a module or a config to a model: what is found, and the sentence for what is not."""

import json
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from deepnet_edu.messages import UserError
from deepnet_edu.review.hugging_face import model_of_config
from deepnet_edu.review.target import Place, Reviewed, review_target

FILE = """\
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helper_of_it import WIDTH


@dataclass
class Sizes:
    width: int = WIDTH


class Model(nn.Module):
    def __init__(self, sizes: Sizes = Sizes()) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(sizes.width, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Silent(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x)


class Narrow(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(9, 9)

    def forward(self, x):
        return self.two(self.one(x))


class Mixer(Model):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(3))
        self.norm = nn.LayerNorm(8)

    def forward(self, x):
        for layer in self.layers:
            x = self.norm(x + layer(x, x, x)[0])
        return x


class Choosy(Model):
    def forward(self, x, *, key):
        return super().forward(x + key)


def build_model():
    print("building")
    return Model()


def with_batch():
    return Choosy(), {"x": torch.randn(2, 5, WIDTH), "key": torch.randn(2, 5, WIDTH)}


def wrong_batch():
    return Model(), torch.randn(2, 5, WIDTH + 1)


def odd_batch():
    return Model(), "text"


def needs(layers, *, width, dropout=0.1):
    return Model()


def fails():
    raise RuntimeError("no such\\nthing")


def leaves():
    raise SystemExit(5)


def number():
    return 3


def nothing():
    pass


class Space:
    build = staticmethod(build_model)


model = Model()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "models.py").write_text(FILE)
    (tmp_path / "my" / "helper_of_it.py").write_text("WIDTH = 8\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("")
    (tmp_path / "package" / "one.py").write_text("from .two import build\n")
    (tmp_path / "package" / "two.py").write_text("from torch import nn\n\n\ndef build():\n    return nn.Linear(2, 2)\n")
    monkeypatch.chdir(tmp_path)
    before, paths = set(sys.modules), list(sys.path)
    yield tmp_path
    assert sys.path == paths
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("package", "helper_of_it", "__reviewed__"):
            del sys.modules[name]


def told(target: str) -> str:
    with pytest.raises(UserError) as refused:
        review_target(target)
    return str(refused.value)


def line_of(text: str) -> int:
    return FILE.splitlines().index(text) + 1


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("build_model", "def build_model():"),
        ("Model", "class Model(nn.Module):"),
        ("with_batch", "def with_batch():"),
        ("Space.build", "def build_model():"),
        ("model", "from __future__ import annotations"),
    ],
)
def test_a_function_a_class_and_a_model_of_a_file(here: Path, name: str, line: str) -> None:
    found = review_target(f"my/models.py:{name}")
    assert found.review.design is not None
    assert found.review.design.name == "Post-LN"
    assert found.place is not None
    assert (found.place.file.resolve(), found.place.line) == ((here / "my" / "models.py").resolve(), line_of(line))


def test_what_the_users_code_prints_does_not_go_to_standard_output(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    review_target("my/models.py:build_model")
    assert capsys.readouterr() == ("", "building\n")


def test_a_module_of_the_working_folder(here: Path) -> None:
    found = review_target("package.one:build")
    assert found.place == Place(here / "package" / "two.py", 4)


def test_a_model_without_a_residual_is_said(here: Path) -> None:
    found = review_target("my/models.py:Silent")
    assert found.review.verdict == "UNKNOWN"
    (row,) = found.review.rows
    assert row.mend.startswith("I cannot see where the residual is: ")
    assert row.room == "unseen"
    assert found.review.headline == "Could not be judged: where the residual is."


def test_the_same_seed_each_time(here: Path) -> None:
    assert review_target("my/models.py:Model").review == review_target("my/models.py:Model").review


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("nowhere.py:build", "nowhere.py is not here, or is not a file: expected file.py:NAME"),
        ("mine:build", "There is no module 'mine'"),
        ("my/models.py", "has no name after it: add that of a function or model, my/models.py:build_model"),
        ("my/models.py:", "Unknown name in my/models.py '': expected one of"),
        ("my/models.py:build_modl", "Unknown name in my/models.py 'build_modl': did you mean 'build_model'?"),
        ("my/models.py:Space.bild", "Unknown name in my/models.py 'bild': did you mean 'build'?"),
        ("my/models.py:needs", "needs arguments (layers, width): write a function without any"),
        ("my/models.py:fails", "does not run: RuntimeError at my/models.py, line "),
        ("my/models.py:leaves", "does not run: SystemExit"),
        ("my/models.py:number", "gives an object of type int: expected a torch.nn.Module"),
        ("my/models.py:nothing", "gives nothing: expected a torch.nn.Module"),
        ("my/models.py:WIDTH", "gives an object of type int"),
        ("my/models.py:Narrow", "How is this model run? Random token ids, images and vectors were tried (RuntimeError"),
        ("my/models.py:Choosy", "let a function return (model, batch)"),
        ("my/models.py:Mixer", "How many layers does my/models.py:Mixer have? Add --depth N, or"),
        ("my/models.py:wrong_batch", "does not run: AssertionError at my/models.py, line "),
        ("my/models.py:odd_batch", "A model of another make is called with a tensor"),
        ("package/one.py:build", "Name it as package.module:NAME"),
        ("package.three:build", "There is no module 'package.three'"),
        ("not there:x", "is neither a file of Python nor a module"),
        ("bert-base-uncased", "nothing is downloaded"),
        ("x.json", "'x.json' names nothing to review: expected"),
    ],
)
def test_what_gives_no_model_is_one_sentence(here: Path, target: str, sentence: str) -> None:
    said = told(target)
    assert sentence in said
    assert "\n" not in said


def test_code_that_cannot_be_read_or_raises(here: Path) -> None:
    Path("broken.py").write_text("def build(:\n")
    Path("raises.py").write_text("import torch\n\nraise ValueError('at once')\n")
    Path("empty.py").write_text("x = 1\n")
    assert "broken.py does not run: SyntaxError" in told("broken.py:build")
    assert "raises.py does not run: ValueError at raises.py, line 3: at once." in told("raises.py:build")
    assert "nor any other function, class or model" in told("empty.py:build")


# --- Hugging Face configs

BERT = {
    "model_type": "bert", "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
    "intermediate_size": 64,
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "is not a Hugging Face config: expected an object with a model_type"),
        ('{"model_type": 3}', "is not a Hugging Face config"),
        ("{", "config.json cannot be read: not JSON"),
        ("[" * 100_000, "cannot be read: nested too deeply"),
        (
            json.dumps(BERT | {"auto_map": {"AutoModel": "evil.Model"}}),
            "names code of its own (auto_map), which is not run",
        ),
    ],
)
def test_what_is_no_config(here: Path, text: str, sentence: str) -> None:
    Path("config.json").write_text(text)
    assert sentence in told(".")
    assert sentence in told("config.json")


def test_a_folder_without_a_config(here: Path) -> None:
    assert "my holds no config.json" in told("my")


def test_a_config_needs_transformers(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.json").write_text(json.dumps(BERT))
    monkeypatch.setattr("deepnet_edu.review.hugging_face.find_spec", lambda _: None)
    assert told("config.json") == "config.json needs transformers to be built: python -m pip install transformers"


needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="pip install --no-deps -r tests/peers/reviewed.txt"
)


@pytest.mark.peers
@needs_transformers
@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "brt"}, "builds no model of config.json"),
        ({"hidden_size": "x"}, "builds no model of config.json"),
        ({"num_attention_heads": 5}, "builds no model of config.json"),
        ({"hidden_size": 2**20}, "parameters, needs about"),
    ],
)
def test_a_config_of_which_nothing_can_be_built(here: Path, changes: dict, sentence: str) -> None:
    Path("config.json").write_text(json.dumps(BERT | changes))
    assert sentence in told("config.json")


SIZES = {name: size for name, size in BERT.items() if name != "model_type"}
#: Configs as Hugging Face writes them, small; and what the model is.
CONFIGS = {
    "BERT": (BERT, "Post-LN", (3, 0)),
    "GPT-2": ({"model_type": "gpt2", "vocab_size": 50, "n_embd": 32, "n_layer": 3, "n_head": 4}, "Pre-LN", (0, 3)),
    "Llama": ({"model_type": "llama", "num_key_value_heads": 2, **SIZES}, "Pre-LN", (0, 3)),
    "T5": (
        {"model_type": "t5", "vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2,
         "num_decoder_layers": 5, "num_heads": 4}, "Pre-LN", (2, 5),
    ),
    "ViT": ({"model_type": "vit", "image_size": 16, "patch_size": 4, **SIZES}, "Pre-LN", (3, 0)),
    "OPT": (
        {"model_type": "opt", "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
         "ffn_dim": 64, "word_embed_proj_dim": 32}, "Pre-LN", (0, 3),
    ),
}  # fmt: skip


@pytest.mark.peers
@needs_transformers
@pytest.mark.parametrize("name", list(CONFIGS))
def test_models_of_hugging_faces_configs_are_told_what_they_are(here: Path, name: str) -> None:
    config, design, depth = CONFIGS[name]
    Path("model").mkdir()
    Path("model/config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16", "dtype": "bfloat16"}))
    found: Reviewed = review_target("model")
    assert found.place == Place(Path("model/config.json"))
    assert found.review.design is not None
    assert (found.review.design.name, found.review.depth) == (design, depth)
    assert "UNKNOWN" not in {row.status for row in found.review.rows}


@pytest.mark.peers
@needs_transformers
def test_no_weights_of_the_folder_are_read(here: Path) -> None:
    """A pickle beside the config stays closed."""
    Path("config.json").write_text(json.dumps(BERT))
    for name in ("pytorch_model.bin", "model.safetensors"):
        Path(name).write_bytes(b"\x80\x04not a pickle")
    model, file = model_of_config(Path("."))
    assert file == Path("config.json")
    assert next(model.parameters()).isfinite().all()

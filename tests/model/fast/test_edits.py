"""Edits of what a layer is made of change output, gradient and training as by the plain path."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepnet_edu import probe
from deepnet_edu.course.places import ROOT
from deepnet_edu.model import Model
from deepnet_edu.model.attention import MultiHeadAttention
from deepnet_edu.model.code import Code
from deepnet_edu.model.fast import path as fast_path
from deepnet_edu.model.fast.proof import APART
from deepnet_edu.model.fast.reading import Reading
from deepnet_edu.model.layer import FeedForward, SubLayer, TransformerLayer
from deepnet_edu.model.shape import Shape
from deepnet_edu.model.stack import Stack
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.residual.deepnorm import DeepNorm
from deepnet_edu.training import TrainConfig, TrainStep
from tests.model.fast.edits import BATCH, CONFIG, EDITS, FOLLOWED, WITHOUT_EFFECT, Edit, by_place, made, rule, taken

SETTINGS = TrainConfig(steps=9, learning_rate=1e-2, warmup=0, optimizer="sgd")


def found(model: Model) -> dict[str, Tensor]:
    """Output, gradients and, after two steps of training, losses and weights."""
    model.zero_grad()
    logits = model.logits(BATCH)
    model.loss_of(logits, BATCH).backward()
    named = dict(model.named_parameters())
    tensors = {"output": logits} | {
        f"gradient of {name}": p.grad.clone() for name, p in named.items() if p.grad is not None
    }
    with TrainStep(model, SETTINGS) as step:
        losses = [step(BATCH).loss for _ in range(2)]
    tensors |= {"losses": torch.tensor(losses)} | {name: p.detach().clone() for name, p in named.items()}
    return {name: tensor.detach() for name, tensor in tensors.items()}


def edited(edit: Edit, path: Any) -> tuple[dict[str, Tensor], str]:
    model = made()
    model.use_path(path)
    model.logits(BATCH)
    with pytest.MonkeyPatch.context() as patch:
        edit(model, patch)
        try:
            return found(model), taken(model)
        finally:
            if hook := getattr(model, "hook", None):
                hook.remove()


@pytest.fixture(scope="module")
def unedited() -> dict[str, Tensor]:
    return edited(lambda model, patch: None, "plain")[0]


@pytest.mark.parametrize("name", [*EDITS, *WITHOUT_EFFECT])
def test_an_edit_counts_as_on_the_plain_path(name: str, unedited: dict[str, Tensor]) -> None:
    edit = {**EDITS, **WITHOUT_EFFECT}[name]
    (expected, _), (mine, how) = edited(edit, "plain"), edited(edit, "auto")
    torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-9)
    assert how.startswith("fast" if name in FOLLOWED else "plain, since ")
    same = expected.keys() == unedited.keys() and all(torch.equal(t, unedited[n]) for n, t in expected.items())
    assert same == (name in WITHOUT_EFFECT)


AT_ANY_TIME = ["class: rule.write", "code: rule.write", "own: FFN", "hook: norm", "buffer: .data", "attribute: scale"]


@pytest.mark.parametrize("name", AT_ANY_TIME)
def test_in_the_middle_of_training(name: str) -> None:
    losses: dict[str, list[float]] = {}
    for path in ("plain", "auto"):
        model = made()
        model.use_path(path)
        with TrainStep(model, SETTINGS) as step, pytest.MonkeyPatch.context() as patch:
            losses[path] = [step(BATCH).loss]
            assert taken(model).startswith("fast") == (path == "auto")
            EDITS[name](model, patch)
            losses[path] += [step(BATCH).loss for _ in range(2)]
    assert losses["auto"] == pytest.approx(losses["plain"], rel=1e-9)


@pytest.mark.parametrize("name", AT_ANY_TIME)
def test_under_a_probe_and_with_layers_that_are_computed_again(name: str) -> None:
    rows = []
    for path in ("plain", "auto"):
        model = made()
        model.use_path(path)
        model.checkpoint_every(2)
        probe(model, BATCH)
        with pytest.MonkeyPatch.context() as patch:
            EDITS[name](model, patch)
            profile = probe(model, BATCH)
            rows.append((torch.tensor(profile.variance), torch.tensor(profile.gradient_norm), found(model)))
    torch.testing.assert_close(rows[1], rows[0], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["class: rule.write", "hook: norm"])
def test_a_compiled_layer_is_compiled_again(name: str) -> None:
    model = made()
    model.use_compiled("layer", "eager")
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        model.logits(BATCH)
        EDITS[name](model, patch)
        compiled = model.logits(BATCH)
        model.use_compiled("no")
        model.use_path("plain")
        torch.testing.assert_close(compiled, model.logits(BATCH))


SCRIPT = """
import deepnet_edu, torch
from deepnet_edu.model import ModelConfig, random_batch
config = ModelConfig("decoder", "lm", 3, d_model=16, n_heads=2, d_ff=24, vocab_size=11)
model, batch = deepnet_edu.build_model(config), random_batch(config, 2, 5)
fast = model.logits(batch)
print(deepnet_edu.__file__, model.stack.path_taken)
model.use_path("plain")
torch.testing.assert_close(fast, model.logits(batch))
"""


def test_a_file(tmp_path: Path) -> None:
    """In a process of its own, a few seconds, since this one has read its files."""
    package = shutil.copytree(ROOT / "deepnet_edu", tmp_path / "deepnet_edu")
    file = package / "residual" / "deepnorm.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("self.norm(self.alpha * x + branch)", "self.norm(x + branch)"), encoding="utf-8")
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(package))
    assert "plain, since it was compared with the plain layer, and the output differs" in done.stdout


def test_a_stack_is_read_again_only_where_something_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    monkeypatch.setattr(fast_path, "Reading", lambda *arguments: read.append(Reading(*arguments)) or read[-1])
    model = made()
    for _ in range(2):
        model.loss(BATCH).backward()
        model.eval().logits(BATCH)
        model.train()
    assert len(read) == 2  # in both modes
    rule(model).alpha.fill_(0.7)
    model.logits(BATCH)
    assert len(read) == 3
    with TrainStep(model, SETTINGS) as step:
        for _ in range(3):
            step(BATCH)
    assert len(read) == 4


# --- what code does beside computing


class Outside:
    seen: list[Tensor] = []  # noqa: RUF012


def printing(self: Any, state: Any, branch: Tensor) -> Any:
    print("here")
    return (self.norm(self.alpha * state[0] + branch),)


def appending(self: Any, state: Any, branch: Tensor) -> Any:
    Outside.seen.append(branch)
    return (self.norm(self.alpha * state[0] + branch),)


SEEN: list[Tensor] = []
GAMMA = 1.0


def appending_to_a_global(self: Any, state: Any, branch: Tensor) -> Any:
    SEEN.append(branch)
    return (self.norm(self.alpha * state[0] + branch),)


def keeping(self: Any, state: Any, branch: Tensor) -> Any:
    self.last = branch
    return (self.norm(self.alpha * state[0] + branch),)


def with_a_global(self: Any, state: Any, branch: Tensor) -> Any:
    return (self.norm(self.alpha * state[0] + GAMMA * branch),)


def listening(self: Any, state: Any, branch: Tensor) -> Any:
    branch.register_hook(torch.neg)
    return (self.norm(self.alpha * state[0] + branch),)


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (printing, "calls print"),
        (appending, "uses seen, a list"),
        (appending_to_a_global, "uses SEEN, a list"),
        (keeping, "changes last"),
        (listening, "changes register_hook"),
        (by_place, "reads place, a Place"),
    ],
)
def test_code_that_a_comparison_cannot_judge_is_run(write: Any, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeepNorm, "write", write)
    model = made()
    model.logits(BATCH)
    assert taken(model).startswith("plain, since the code of DeepNorm")
    assert reason in taken(model)


def test_a_number_that_was_set_by_hand_survives_another_precision() -> None:
    model = made(torch.float32)
    rule(model).alpha.fill_(0.7)
    model.double()
    found = [sublayer.residual.alpha.item() for sublayer in model.sublayers()]
    exact = [sublayer.residual.constants["alpha"] for sublayer in model.sublayers()]
    assert found.pop(3) == pytest.approx(0.7, rel=1e-7)
    assert found == exact[:-1]


def test_a_number_elsewhere_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeepNorm, "write", with_a_global)
    model = made()
    first = model.logits(BATCH)
    assert taken(model).startswith("fast")
    monkeypatch.setattr(f"{__name__}.GAMMA", 0.5)
    second = model.logits(BATCH)
    assert "the output differs" in taken(model)
    assert not torch.allclose(first, second)


def test_our_own_code_only_computes() -> None:
    made()  # with the first rule that is made all have PyTorch
    classes = (
        TransformerLayer,
        SubLayer,
        FeedForward,
        MultiHeadAttention,
        nn.LayerNorm,
        nn.Linear,
        *RESIDUALS.values(),
    )
    assert not [code.trouble for code in map(Code, classes) if code.trouble]


# --- the comparison


def test_it_leaves_no_trace() -> None:
    model = made(torch.float32)
    seen: list[Tensor] = []
    for parameter in model.parameters():
        parameter.register_hook(seen.append)
    tensors = {name: (t, t.clone(), t._version) for name, t in model.state_dict(keep_vars=True).items()}
    state = torch.get_rng_state()
    packed: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: packed.append(t) or t, lambda t: t):
        stack = model.stacks()["decoder"]
        x = torch.randn(2, 5, 16)
        after = torch.get_rng_state()
        with torch.no_grad():
            stack(x)
    assert stack.path_taken.startswith("fast")
    assert not seen
    assert not packed
    assert torch.equal(after, torch.get_rng_state())
    assert not torch.equal(after, state)
    assert all(p.grad is None for p in model.parameters())
    for name, (tensor, value, version) in tensors.items():
        assert model.state_dict(keep_vars=True)[name] is tensor
        assert torch.equal(tensor, value)
        assert tensor._version == version


@pytest.mark.parametrize("layers", [6, 1000])
@pytest.mark.parametrize("dtype", APART)
@pytest.mark.parametrize("residual", ["deepnorm", "deepnorm_glm", "post_ln", "complete_p", "deepscale_lm"])
def test_a_number_that_is_off_by_a_thousandth_is_seen(
    residual: str, dtype: torch.dtype, layers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the constants of a thousand layers, where a branch is a hundredth of the stream, too."""
    stack = Stack("decoder", residual, encoder_layers=0, decoder_layers=2, shape=Shape(64, 4, 256)).to(dtype)
    numbers = replace(CONFIG, decoder_layers=layers, residual=residual).rule_constants()
    for sublayer in stack.sublayers():
        for name in numbers.keys() & dict(sublayer.residual.named_buffers()):
            sublayer.residual.set_constant(name, numbers[name])
    x = torch.randn(1, 33, 64, dtype=dtype)
    write = RESIDUALS[residual].write
    stack(x)
    assert stack.path_taken.startswith("fast")
    monkeypatch.setattr(RESIDUALS[residual], "write", lambda self, state, branch: write(self, state, 1.001 * branch))
    stack(x)
    assert "differs" in stack.path_taken

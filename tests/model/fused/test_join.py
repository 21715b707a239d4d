"""Layers whose norms one operation computes are the plain layers, edited or not. By its formulas: no GPU is needed."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepnet_edu import build_model
from deepnet_edu.model import Batch, Model, random_batch
from deepnet_edu.model.attention import Cache
from deepnet_edu.model.fused import operator
from deepnet_edu.model.layer import SubLayer
from deepnet_edu.residual import RESIDUALS
from deepnet_edu.residual.deepnorm import DeepNorm
from tests.rules import CLAIMS, small_config

JOINED = "one kernel joins branch, stream and norm"
#: The rules that a kernel knows, in whole or in part.
KNOWN = {
    "post_ln", "ds_init", "deepnorm", "deepnorm_glm", "keel", "pre_ln", "mix_ln", "sub_ln", "hybrid_norm",
    "layernorm_scaling",
}  # fmt: skip


@pytest.fixture(autouse=True)
def formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were a GPU: the operation is used, and computes by its formulas."""
    monkeypatch.setattr(operator, "why_not", lambda x: "")
    monkeypatch.setattr(operator, "_kernels", lambda x: None)


def found(model: Model, batch: Batch) -> tuple[Tensor, ...]:
    model.zero_grad()
    logits = model.logits(batch)
    model.loss_of(logits, batch).backward()
    return logits.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)


def made(
    residual: str = "deepnorm", architecture: Any = "decoder", layers: int = 3, **more: Any
) -> tuple[Model, Batch]:
    config = replace(small_config(residual, architecture, layers), **more)
    model = build_model(config).double()
    model.use_path("plain")
    return model, random_batch(config, 2, 7)


def same(model: Model, batch: Batch, said: str = JOINED) -> None:
    """Joined and plain, to the last digits."""
    joined = found(model, batch)
    assert all(said in stack.joined for stack in model.stacks().values()), [s.joined for s in model.stacks().values()]
    with model.running(norm_kernel="no"):
        torch.testing.assert_close(joined, found(model, batch), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("residual", "architecture"), CLAIMS)
def test_every_rule_gives_the_same_numbers(residual: str, architecture: Any) -> None:
    model, batch = made(residual, architecture, 4)
    known = residual in KNOWN
    same(model, batch, JOINED if known else "")
    found(model, batch)
    assert all((stack.joined == JOINED) == known for stack in model.stacks().values())
    assert known == any(sublayer.join is not None for sublayer in model.sublayers())


@pytest.mark.parametrize("more", [{"norm": "rms"}, {"bias": False}, {"activation": "swiglu"}, {"n_kv_heads": 1}])
def test_every_shape(more: dict[str, Any]) -> None:
    for residual in ("deepnorm", "pre_ln"):
        same(*made(residual, **more))


def test_dropout_is_drawn_as_in_the_plain_layer() -> None:
    for residual in ("deepnorm", "pre_ln"):
        model, batch = made(residual, dropout=0.5)
        ways = []
        for asked in ("no", "auto"):
            torch.manual_seed(0)
            with model.running(norm_kernel=asked):
                ways.append(found(model, batch))
        assert all(stack.joined == JOINED for stack in model.stacks().values())
        torch.testing.assert_close(*ways, rtol=1e-12, atol=1e-12)


def test_checkpoints_compiled_layers_and_copies() -> None:
    for residual in ("deepnorm", "pre_ln"):
        model, batch = made(residual)
        expected = found(model, batch)
        for how in ({"checkpoint_every": 2}, {"compile": "layer", "backend": "aot_eager"}):
            with model.running(**how):
                torch.testing.assert_close(found(model, batch), expected, rtol=1e-12, atol=1e-12)
                assert all(stack.joined == JOINED for stack in model.stacks().values())
        same(copy.deepcopy(model), batch)


def test_token_by_token() -> None:
    model, batch = made()
    whole, cache = model.logits(batch), Cache()
    with torch.no_grad():
        steps = [model(batch.inputs[:, i : i + 1], cache=cache) for i in range(batch.inputs.shape[1])]
    torch.testing.assert_close(torch.cat(steps, 1), whole, rtol=1e-10, atol=1e-10)


def test_an_edited_line_is_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """LN(αx + F(x)) of the rule is the line that counts, even where a kernel ran before."""
    model, batch = made()
    before = found(model, batch)
    with monkeypatch.context() as edited:
        edited.setattr(DeepNorm, "write", lambda self, s, f: (self.norm(1.001 * self.alpha * s[0] + f),))
        same(model, batch, "it was compared with the plain layer, and the output differs")
        assert (found(model, batch)[0] - before[0]).abs().max() > 1e-6
    model.mode = model.mode
    torch.testing.assert_close(found(model, batch), before, rtol=1e-12, atol=1e-12)
    assert all(stack.joined == JOINED for stack in model.stacks().values())


ORDINARY = SubLayer.branched


def halved(self: Any, state: Any, context: Any) -> Tensor:
    return 0.5 * ORDINARY(self, state, context)


def test_an_edited_branch_and_sublayer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for residual in ("deepnorm", "pre_ln"):
        model, batch = made(residual)
        found(model, batch)
        with monkeypatch.context() as edited:
            edited.setattr(SubLayer, "branched", halved)
            same(model, batch, "it was compared with the plain layer")


def test_a_changed_number_is_seen_at_once() -> None:
    model, batch = made()
    before = found(model, batch)
    for rule in model.rules():
        rule.set_constant("alpha", 2.5)
    same(model, batch)
    assert (found(model, batch)[0] - before[0]).abs().max() > 1e-3


def test_hooks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = made()
    found(model, batch)
    seen: list[int] = []
    norm = model.sublayers()[2].residual.norm
    assert isinstance(norm, nn.Module)
    handle = norm.register_forward_hook(lambda *_: seen.append(1))
    same(model, batch, "has a hook")
    assert seen
    handle.remove()
    model.mode = model.mode
    same(model, batch)


@pytest.mark.parametrize("stream", ["float32", "half"])
@pytest.mark.parametrize("residual", ["deepnorm", "pre_ln", "keel", "post_ln"])
def test_under_autocast(residual: str, stream: Any) -> None:
    """Beside float64 a joined stack is about as far as a plain one."""
    model, batch = made(residual, layers=6)
    exact, twin = found(model, batch), copy.deepcopy(model).float()
    apart = []
    for kernel in ("no", "auto"):
        with twin.running(stream=stream, norm_kernel=kernel), torch.autocast("cpu", torch.bfloat16):
            ours = found(twin, batch)
        a, b = (torch.cat([one.double().flatten() for one in way[1:]]) for way in (ours, exact))
        apart.append(((a - b).norm() / b.norm()).item())
    assert all(one.joined == JOINED for one in twin.stacks().values())
    assert apart[1] < 1.3 * apart[0] + 1e-3
    assert apart[0] < 0.05


def test_what_was_asked_for_and_cannot_be_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = made("rezero")
    with model.running(norm_kernel="yes"), pytest.raises(ValueError, match="norm_kernel='yes'.*norm_kernel='auto'"):
        model.loss(batch)
    with pytest.raises(ValueError, match="norm_kernel"):
        model.mode = replace(model.mode, norm_kernel="always")  # type: ignore[arg-type]
    monkeypatch.undo()
    model, batch = made()
    with model.running(norm_kernel="yes"), pytest.raises(ValueError, match="Triton"):
        model.loss(batch)


def test_the_rules_that_are_known_are_all_there() -> None:
    assert set(RESIDUALS) >= KNOWN

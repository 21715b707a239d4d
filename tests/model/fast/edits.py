"""Edits of all that a layer is made of, by name, and a small model to make them on."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from deepnet_edu import build_model
from deepnet_edu.model import Model, ModelConfig, random_batch
from deepnet_edu.model import layer as layer_module
from deepnet_edu.model.attention import MultiHeadAttention
from deepnet_edu.model.layer import FeedForward, SubLayer, TransformerLayer
from deepnet_edu.model.stack import Stack
from deepnet_edu.residual import Residual
from deepnet_edu.residual.deepnorm import DeepNorm

CONFIG = ModelConfig("decoder", "lm", 3, d_model=16, n_heads=2, d_ff=24, vocab_size=11)
BATCH = random_batch(CONFIG, 2, 5)
Edit = Callable[[Model, pytest.MonkeyPatch], Any]


def made(dtype: torch.dtype = torch.float64) -> Model:
    """A model whose biases and norms are random too."""
    model = build_model(CONFIG)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype)


def layer(model: Model) -> Any:
    """One in the middle."""
    return model.stacks()["decoder"].layers[1]


def rule(model: Model) -> Any:
    return layer(model).ffn.residual


def taken(model: Model) -> str:
    return model.stacks()["decoder"].path_taken


def on(cls: type, name: str, value: Any) -> Edit:
    """Put something into a class."""
    return lambda model, patch: patch.setattr(cls, name, value, raising=False)


def own(find: Callable[[Model], Any], name: str, value: Any) -> Edit:
    """Put something into an object."""
    return lambda model, patch: setattr(find(model), name, value)


def post_ln(self: Any, state: Any, branch: Tensor) -> Any:
    return (self.norm(state[0] + branch),)


def nearly(self: Any, state: Any, branch: Tensor) -> Any:
    return (self.norm(1.001 * self.alpha * state[0] + branch),)


def by_place(self: Any, state: Any, branch: Tensor) -> Any:
    return (self.norm((1.0 if self.place.layer == 1 else self.alpha) * state[0] + branch),)


def without_gradient(self: Any, state: Any, branch: Tensor) -> Any:
    return (self.norm(self.alpha * state[0].detach() + branch),)


def windowed(self: Any, x: Tensor, context: Any = None) -> Tensor:
    q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
    seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril().triu(-3)
    return self.output(F.scaled_dot_product_attention(q, k, v, seen, scale=self.scale).transpose(1, 2).flatten(2))


def other_code(model: Model, patch: pytest.MonkeyPatch) -> None:
    """As %autoreload does it."""
    patch.setattr(DeepNorm.write, "__code__", post_ln.__code__)


class HalfRule(DeepNorm):
    def write(self, state: Any, branch: Tensor) -> Any:
        return super().write(state, 0.5 * branch)


class HalfBranch(FeedForward):
    def forward(self, x: Tensor, context: Any = None) -> Tensor:
        return 0.5 * super().forward(x)


class HalfAttention(MultiHeadAttention):
    def forward(self, x: Tensor, context: Any = None) -> Tensor:
        return 0.5 * super().forward(x, context)


class HalfSubLayer(SubLayer):
    def branched(self, state: Any, context: Any = None) -> Tensor:
        return 0.5 * super().branched(state, context)


class HalfLayer(TransformerLayer):
    def forward(self, state: Any, context: Any = None) -> Any:
        return (0.5 * super().forward(state, context)[0],)


class HalfNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


class Half(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 0.5 * weight


def hooked(find: Callable[[Model], Any], before: bool = False) -> Edit:
    def edit(model: Model, patch: pytest.MonkeyPatch) -> None:
        if before:
            find(model).register_forward_pre_hook(lambda module, inputs: (0.5 * inputs[0], *inputs[1:]))
        else:
            find(model).register_forward_hook(
                lambda module, inputs, y: (0.5 * y[0],) if isinstance(y, tuple) else 0.5 * y
            )

    return edit


def hook_on_all(model: Model, patch: pytest.MonkeyPatch) -> None:
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, inputs, y: 0.5 * y if isinstance(module, nn.LayerNorm) else None
    )
    patch.setattr(model, "hook", hook, raising=False)  # which the test takes away


def backward_hook(model: Model, patch: pytest.MonkeyPatch) -> None:
    layer(model).ffn.branch.register_full_backward_hook(
        lambda module, dx, dy: tuple(g if g is None else 0.5 * g for g in dx)
    )


def own_ffn(model: Model, patch: pytest.MonkeyPatch) -> None:
    branch = layer(model).ffn.branch
    branch.forward = lambda x, context=None: branch.ffn_out(branch.ffn_in(x).relu())


def swapped(model: Model, patch: pytest.MonkeyPatch) -> None:
    layers = model.stacks()["decoder"].layers
    layers[0], layers[2] = layers[2], layers[0]


def all_layers(model: Model, patch: pytest.MonkeyPatch) -> None:
    for i, sublayer in enumerate(model.sublayers()):
        sublayer.residual.set_constant("alpha", 1.0 + i)


def replaced_buffer(model: Model, patch: pytest.MonkeyPatch) -> None:
    rule(model).alpha = torch.tensor(0.7, dtype=torch.float64)


def twice(model: Model, patch: pytest.MonkeyPatch) -> None:
    """The tensor that replaced an equal one is the one that counts."""
    rule(model).alpha = rule(model).alpha.clone()
    model.logits(BATCH)
    rule(model).alpha.fill_(0.7)


def learned(model: Model, patch: pytest.MonkeyPatch) -> None:
    rule(model).alpha = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))


def weight(model: Model) -> Any:
    return layer(model).ffn.branch.ffn_out.weight


EDITS: dict[str, Edit] = {
    "class: rule.write": on(DeepNorm, "write", post_ln),
    "class: rule.write, 1/1000": on(DeepNorm, "write", nearly),
    "class: rule.write, one layer": on(DeepNorm, "write", by_place),
    "class: rule.write, gradient": on(DeepNorm, "write", without_gradient),
    "class: rule.read": on(DeepNorm, "read", lambda self, state: 0.5 * state[0]),
    "class: rule.start": on(DeepNorm, "start", lambda self, x: (0.5 * x,)),
    "class: rule.finish": on(DeepNorm, "finish", lambda self, state: 0.5 * state[0]),
    "class: what rules inherit": on(Residual, "read", lambda self, state: 0.5 * state[0]),
    "class: FFN": on(FeedForward, "forward", lambda self, x, context=None: self.ffn_out(self.ffn_in(x).relu())),
    "class: attention": on(MultiHeadAttention, "forward", lambda self, x, context=None: self.output(x)),
    "class: attention of 4 tokens": on(MultiHeadAttention, "forward", windowed),
    "class: sub-layer": on(
        SubLayer, "forward", lambda self, s, context=None: self.residual.write(s, 0.5 * self.branched(s, context))
    ),
    "class: layer": on(TransformerLayer, "forward", lambda self, state, context=None: self.ffn(state, context)),
    "class: norm": on(nn.LayerNorm, "forward", lambda self, x: 0.5 * x),
    "class: matrix": on(nn.Linear, "forward", lambda self, x: x @ self.weight.t()),
    "class: stack": on(Stack, "finish", lambda self, state: 0.5 * state[0]),
    "class: __call__": on(FeedForward, "__call__", lambda self, x, context=None: 0.5 * self.forward(x)),
    "code: rule.write": other_code,
    "module: through": lambda model, patch: patch.setattr(layer_module, "through", lambda inside, slot, x: 0.5 * x),
    "module: layer_norm": lambda model, patch: patch.setattr(F, "layer_norm", lambda x, *_: 0.5 * x),
    "own: rule.write": own(rule, "write", lambda state, branch: (state[0] + branch,)),
    "own: FFN": own_ffn,
    "own: sub-layer": own(lambda m: layer(m).ffn, "forward", lambda state, context=None: (0.5 * state[0],)),
    "own: layer": own(layer, "forward", lambda state, context=None: (0.5 * state[0],)),
    "own: norm": own(lambda m: rule(m).norm, "forward", lambda x: 0.5 * x),
    "own: matrix": own(lambda m: layer(m).ffn.branch.ffn_in, "forward", lambda x: x.repeat(1, 1, 2)[..., :24]),
    "subclass: rule": own(rule, "__class__", HalfRule),
    "subclass: FFN": own(lambda m: layer(m).ffn.branch, "__class__", HalfBranch),
    "subclass: attention": own(lambda m: layer(m).self_attention.branch, "__class__", HalfAttention),
    "subclass: sub-layer": own(lambda m: layer(m).ffn, "__class__", HalfSubLayer),
    "subclass: layer": own(layer, "__class__", HalfLayer),
    "subclass: norm": own(lambda m: rule(m).norm, "__class__", HalfNorm),
    "hook: layer": hooked(layer),
    "hook: sub-layer": hooked(lambda m: layer(m).ffn),
    "hook: FFN": hooked(lambda m: layer(m).ffn.branch),
    "hook: attention": hooked(lambda m: layer(m).self_attention.branch),
    "hook: norm": hooked(lambda m: rule(m).norm),
    "hook: matrix, before": hooked(lambda m: layer(m).ffn.branch.ffn_in, before=True),
    "hook: backward": backward_hook,
    "hook: all modules": hook_on_all,
    "buffer: fill_": lambda model, patch: rule(model).alpha.fill_(0.7),
    "buffer: .data": lambda model, patch: rule(model).alpha.data.fill_(0.7),
    "buffer: all layers": all_layers,
    "buffer: set_constant": lambda model, patch: rule(model).set_constant("alpha", 0.7),
    "buffer: 0": lambda model, patch: rule(model).set_constant("alpha", 0.0),
    "buffer: replaced": replaced_buffer,
    "buffer: replaced by an equal one, then filled": twice,
    "buffer: a vector": own(rule, "alpha", torch.linspace(0, 1, 16, dtype=torch.float64)),
    "parameter: α": learned,
    "parameter: replaced": lambda model, patch: setattr(
        layer(model).ffn.branch.ffn_out, "weight", nn.Parameter(0.5 * weight(model).detach())
    ),
    "parameter: .data": lambda model, patch: setattr(weight(model), "data", 0.5 * weight(model)),
    "parameter: in place": lambda model, patch: weight(model).data.mul_(0.5),
    "parameter: hook": lambda model, patch: weight(model).register_hook(lambda gradient: 0.5 * gradient),
    "parameter: frozen": lambda model, patch: weight(model).requires_grad_(False),
    "parameter: parametrized": lambda model, patch: parametrize.register_parametrization(
        layer(model).ffn.branch.ffn_out, "weight", Half()
    ),
    "attribute: eps": own(lambda m: rule(m).norm, "eps", 0.1),
    "attribute: activation": own(lambda m: layer(m).ffn.branch, "activation", torch.tanh),
    "attribute: relu": own(lambda m: layer(m).ffn.branch, "activation", F.relu),
    "attribute: scale": own(lambda m: layer(m).self_attention.branch, "scale", 3.0),
    "attribute: heads": own(lambda m: layer(m).self_attention.branch, "n_heads", 4),
    "attribute: causal": own(lambda m: layer(m).self_attention.branch, "causal", False),
    "part: norm": own(rule, "norm", nn.Identity()),
    "part: no bias": own(lambda m: layer(m).ffn.branch.ffn_out, "bias", None),
    "part: order of layers": swapped,
}  # fmt: skip
#: Edits that say something else, and change nothing that is computed.
WITHOUT_EFFECT: dict[str, Edit] = {
    "class: signal": on(DeepNorm, "signal", lambda self: None),
    "constants": lambda model, patch: rule(model).constants.update(alpha=0.7),
}
#: Edits that the fast path follows; it leaves all others to the plain one.
FOLLOWED = {
    "class: rule.start", "buffer: fill_", "buffer: .data", "buffer: all layers", "constants",
    "buffer: set_constant", "buffer: 0", "buffer: replaced", "buffer: replaced by an equal one, then filled",
    "parameter: replaced", "parameter: .data", "parameter: in place", "parameter: hook", "parameter: frozen",
    "attribute: eps", "part: order of layers",
}  # fmt: skip

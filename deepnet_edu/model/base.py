"""The batch, and what all models share."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deepnet_edu.fields import check_argument
from deepnet_edu.messages import unknown
from deepnet_edu.model.attention import Cache, Context, rotary
from deepnet_edu.model.config import Group, ModelConfig
from deepnet_edu.model.embedding import PatchEmbedding, TokenEmbedding, as_tokens, check_inside, may_look, position_ids
from deepnet_edu.model.layer import SubLayer
from deepnet_edu.model.mode import FormerVerbs, Mode
from deepnet_edu.model.stack import Stack
from deepnet_edu.residual import RESIDUALS, Projected, Residual, Scheduled, StackName, modules_inside, through

#: Targets with this value do not count in the loss (PyTorch's own default).
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """What a model reads and what it should answer.

    Attributes:
        inputs: (B, T) tokens, int64 or other whole numbers, of the source in translation; images (B, channels, height,
            width).
        targets: (B, T) tokens, likewise, -100 where no answer is wanted; (B,) classes of images.
        padding: (B, T) bool, True where an input is padding; None if there is none.
        target_inputs: (B, T') int64, what the decoder of a translation reads: the targets one step later.
        target_padding: (B, T') bool, of target_inputs.
    """

    inputs: Tensor
    targets: Tensor
    padding: Tensor | None = None
    target_inputs: Tensor | None = None
    target_padding: Tensor | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (value is None and field.default is None):
                check_argument(value, Tensor, field.name)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on ``device``; outside of ``torch.inference_mode()``, of tensors that backward may keep."""

        def moved(tensor: Tensor) -> Tensor:
            keep = tensor.is_inference() and not torch.is_inference_mode_enabled()
            return (tensor.clone() if keep else tensor).to(device)

        tensors = (getattr(self, field.name) for field in fields(self))
        return Batch(*(tensor if tensor is None else moved(tensor) for tensor in tensors))  # type: ignore[arg-type]


def check_trainable(model: nn.Module) -> None:
    """Raise a ValueError where PyTorch gives a parameter no gradient, whatever is asked."""
    if made := next((name for name, weight in model.named_parameters() if weight.is_inference()), None):
        raise ValueError(
            f"The weights of {made} were made under torch.inference_mode(), and such tensors have no gradient: "
            "build or load the model outside of it."
        )


def broken_weights(model: nn.Module) -> str | None:
    """The name of the first parameter that holds a number that is not finite."""
    return next((name for name, weight in model.named_parameters() if not weight.isfinite().all()), None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While entered, the model runs without dropout; afterwards every module is in the mode that it was in."""
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        yield
    finally:
        for module in training:
            module.training = True


def norm_of(config: ModelConfig) -> nn.Module:
    """LN of a model's ends, of the kind that ``config.norm`` says."""
    return nn.LayerNorm(config.d_model) if config.norm == "layer" else nn.RMSNorm(config.d_model, eps=1e-5)


class Model(FormerVerbs, nn.Module):
    """What all models share: a configuration, stacks, a head, and a loss.

    The head is drawn from N(0, 1/d_model), so that logits start with variance 1 and the loss a little above ln(V).
    """

    config: ModelConfig
    head: nn.Linear
    rescale: nn.ModuleDict | None
    before_head: nn.Module | None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        known = getattr(destination, "_metadata", {})
        if prefix[:-1] in known:  # weights of two rules may have the same names and shapes
            known[prefix[:-1]]["rule"] = {"residual": self.config.residual, **self.config.override}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *rest: Any) -> None:
        there, here = local_metadata.get("rule"), {"residual": self.config.residual, **self.config.override}
        if there is not None and there != here:
            rest[-1].append(
                f"These weights are of {there}, and this model is of {here}: build one of that rule; to load them all "
                "the same, load dict(state)."
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def stacks(self) -> dict[StackName, Stack]:
        """The stacks by name, in the order in which a batch passes them."""
        raise NotImplementedError

    def logits(self, batch: Batch) -> Tensor:
        """What the model answers to a batch: (…, vocab_size or n_classes)."""
        raise NotImplementedError

    def embeddings(self) -> list[TokenEmbedding | PatchEmbedding]:
        """The lower ends, one per stack, in the order of :meth:`stacks`."""
        raise NotImplementedError

    def loss(self, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """Mean cross-entropy per answer, in nats; with label smoothing, of answers spread a little over all classes."""
        check_argument(batch, Batch, "batch")
        return self.loss_of(self.logits(batch), batch, label_smoothing)

    @staticmethod
    def loss_of(logits: Tensor, batch: Batch, label_smoothing: float = 0.0) -> Tensor:
        """The same for logits that are known already.

        Raises:
            ValueError: as :meth:`loss_to`, or all answers are asked for where the batch says that there is padding.
        """
        # Of images, and of the source of a translation, padding says nothing about answers.
        padding = batch.padding if batch.target_inputs is None else batch.target_padding
        if padding is not None and padding.shape == batch.targets.shape and may_look(padding):
            asked = batch.targets != IGNORED
            if bool(asked.any()) and bool(padding[asked].all()):
                raise ValueError(
                    "Every target that counts is where the batch has padding, so that nothing of the text is seen. "
                    "padding is True where a token is padding, the opposite of Hugging Face's attention_mask: "
                    "say padding=attention_mask == 0."
                )
        return Model.loss_to(logits, batch.targets, label_smoothing)

    @staticmethod
    def loss_to(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0, answers: Tensor | None = None) -> Tensor:
        """Cross-entropy of logits (…, classes) to targets (…).

        Args:
            logits: of all classes.
            targets: whole numbers, -100 where no answer is wanted; where that is everywhere, the loss is 0.
            label_smoothing: as above.
            answers: divide the sum by this number, of which these are a share; by default by their own number.

        Raises:
            ValueError: targets are of another shape, no whole numbers or, on the CPU, outside the classes.
        """
        targets = as_tokens("Targets", targets)
        if targets.shape != logits.shape[:-1]:
            raise ValueError(
                f"Targets of shape {tuple(targets.shape)}: expected {tuple(logits.shape[:-1])}, one for each output."
            )
        check_inside("Target", targets, logits.shape[-1], "the model's outputs", ignored=IGNORED)
        loss = F.cross_entropy(
            logits.flatten(0, -2),
            targets.flatten(),
            ignore_index=IGNORED,
            label_smoothing=label_smoothing,
            reduction="mean" if answers is None else "sum",
        )
        if answers is not None:
            return loss / answers
        return torch.where((targets != IGNORED).any(), loss, torch.zeros_like(loss))  # a mean of nothing is NaN

    def answer(self, x: Tensor) -> Tensor:
        """(…, d_model) → logits."""
        return through(self.rescale, "logits", self.head(x if self.before_head is None else self.before_head(x)))

    def group(self, name: Group) -> list[nn.Parameter]:
        """The parameters of ``"all"``, of the ``"stack"`` (or both stacks) alone, or of its ``"ends"``."""
        stack = [parameter for stack in self.stacks().values() for parameter in stack.parameters()]
        inside = set(stack)
        ends = [parameter for parameter in self.parameters() if parameter not in inside]
        groups: dict[str, list[nn.Parameter]] = {"all": [*stack, *ends], "stack": stack, "ends": ends}
        if name not in groups:
            raise ValueError(unknown("group of parameters", name, groups))
        return groups[name]

    @property
    def mode(self) -> Mode:
        """How the model runs, see :class:`~deepnet_edu.model.mode.Mode`; to be set, too, until further notice.

        Raises:
            ValueError: when set: there is no such backend, or no two layers of the residual rule are equal (DLCL).
        """
        return next((stack.mode for stack in self.own_stacks().values()), Mode())

    @mode.setter
    def mode(self, mode: Mode) -> None:
        for stack in self.own_stacks().values():
            stack.set_mode(mode)

    @contextmanager
    def running(self, mode: Mode | None = None, *, observer: Any = None, **changes: Any) -> Iterator[None]:
        """Run in another mode for the time of a ``with``; then everything is as it was.

        Args:
            mode: how; by default as each stack runs now.
            observer: looks at the stream on its way up, see :class:`~deepnet_edu.probing.watch.Watch`.
            changes: fields of the mode that are others: ``model.running(path="plain")``.

        Raises:
            ValueError: as of :class:`~deepnet_edu.model.mode.Mode` and ``model.mode``.
        """
        with ExitStack() as entered:
            for stack in self.own_stacks().values():
                entered.enter_context(stack.running(replace(mode or stack.mode, **changes), observer=observer))
            yield

    def _change(self, **changes: Any) -> None:
        self.mode = replace(self.mode, **changes)

    def own_stacks(self) -> dict[str, Stack]:
        """The stacks of this library by name: a stack of another author in their place is not among them."""
        return {name: stack for name, stack in self.stacks().items() if isinstance(stack, Stack)}

    def sublayers(self) -> list[SubLayer]:
        """All sub-layers from the bottom up, stack by stack. A stack of another author has none to show."""
        return [sub for stack in self.own_stacks().values() for sub in stack.sublayers()]

    def rules(self) -> list[Residual]:
        """Residual rules of the sub-layers."""
        return [sublayer.residual for sublayer in self.sublayers()]

    def at_step(self, step: int) -> None:
        """Tell rules that follow a schedule which step of training comes, from 0."""
        if self._has(Scheduled):
            for rule in self.rules():
                if isinstance(rule, Scheduled):
                    rule.at_step(step)

    def _has(self, kind: type[Residual]) -> bool:
        """Whether the rule is of this kind; asking each of 2,000 places, at every step, takes time."""
        return issubclass(RESIDUALS.get(self.config.residual, Residual), kind)

    @torch.no_grad()
    def project(self) -> None:
        """Put weights back where a rule wants them: after initialisation and after every update."""
        if not self._has(Projected):
            return
        ends = dict(zip(self.stacks(), self.embeddings(), strict=True))
        for sublayer in self.sublayers():
            rule = sublayer.residual
            if not isinstance(rule, Projected):
                return
            rule.project(sublayer.branch.weights())
            end = ends[rule.place.stack]
            if rule.place.is_first and isinstance(end, TokenEmbedding):
                rule.project({"embedding": end.token.weight})
                if end.position.kind == "learned":
                    rule.project({"position": end.position.table.weight})
            if rule.place.is_last:
                rule.project({"head": self.head.weight})

    def calibrate(self, batch: Batch) -> None:
        """Measure again, on ``batch``, the constants of rules that take them from the data (Admin); no dropout."""
        with evaluating(self):
            self._calibrate(batch)

    def _calibrate(self, batch: Batch) -> None:
        raise NotImplementedError

    def context(self, padding: Tensor | None, cache: Cache | None, tokens: int, device: torch.device) -> Context:
        """Padding, cache and rotary positions of the sequence at hand."""
        angles = None
        if self.config.position == "rotary":
            past = 0 if cache is None else cache.length
            positions = position_ids(tokens, past, padding, device)
            angles = rotary(positions, self.config.d_model // self.config.n_heads, self.config.rotary_base)
        return Context(padding=padding, cache=cache, rotary=angles)

    def make_head(self, size: int, stack: Stack, table: nn.Embedding | None) -> None:
        """The head with what comes before it, and what the rule of the stack below it puts on the logits."""
        d, kind = self.config.d_model, self.config.head
        self.before_head = None if kind == "linear" else norm_of(self.config)
        if kind == "bert":
            self.before_head = nn.Sequential(nn.Linear(d, d), nn.GELU(), norm_of(self.config))
        self.head = nn.Linear(d, size, bias=kind == "bert")
        if table is not None:
            self.head.weight = table.weight
        first = stack.sublayers()[0].residual if stack.layers else None
        self.rescale = modules_inside(first, ("logits",), size)

"""Is this DeepNorm? A checklist for anybody's PyTorch model, judged by what it does and not by how it is written.

Paper: x ← LN(αx + F(x)); Xavier-normal, gain β on value, output and feed-forward weights, 1 on query and key
(arXiv 2203.00555, Figure 2).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.model import Model
from deepnet_edu.residual import StackName
from deepnet_edu.review import rows
from deepnet_edu.review.dependence import layout
from deepnet_edu.review.forms import SubLayer, carry, find, follow, missed, pieces
from deepnet_edu.review.museum import link
from deepnet_edu.review.recognise import Design, design
from deepnet_edu.review.roles import assign
from deepnet_edu.review.rows import Look, Row, Status
from deepnet_edu.review.trace import Trace, observed
from deepnet_edu.review.views import Inputs, SubLayerView, run_on, views_of_ours
from deepnet_edu.scaling import deepnorm_constants

#: The rows, as they are shown.
ORDER = (
    "α on the skip",
    "norm outside",
    "independent layers",
    "gain of value, output and FFN",
    "gain of query and key",
    "gain of the norms",
    "gradient through F",
    "signal at depth",
)
#: Roles of the matrices that β scales.
SCALED = ("value", "output", "ffn_in", "ffn_gate", "ffn_out")
UNSEEN = (
    "I cannot see where the residual is: between the modules no sum of a stream and a branch was found. Name the "
    "sub-layers, review(model, sublayers=[SubLayerView(branch=layer.attention, norm=layer.norm1, "
    "weights={'value': layer.attention.v.weight, …}), …], run=lambda model: model(x))."
)


class Unseen(ValueError):
    """No residual was found in a model."""


class UnknownDepth(ValueError):
    """The sub-layers do not tell how many layers there are."""


@dataclass(frozen=True)
class Review:
    """The checklist.

    Attributes:
        rows: its lines.
        design: what the model is, where that is another well-known design, which has no α.
        depth: layers of encoder and decoder.
    """

    rows: tuple[Row, ...]
    design: Design | None = None
    depth: tuple[int, int] = (0, 0)

    @property
    def passed(self) -> bool:
        """Whether every row says PASS."""
        return all(row.status == "PASS" for row in self.rows)

    @property
    def verdict(self) -> Status:
        """The worst of all rows."""
        found = {row.status for row in self.rows}
        return "FAIL" if "FAIL" in found else "UNKNOWN" if "UNKNOWN" in found else "PASS"

    @property
    def headline(self) -> str:
        """The verdict in a sentence: what the model is."""
        layers = " + ".join(str(count) for count in self.depth if count) + " layers"
        if self.design:
            return (
                f"Not DeepNorm: this is {self.design.name}, {self.design.formula}. Its α is 1; DeepNorm at {layers} "
                f"has {self['α on the skip'].expected}. That is a fault only in a model that should be DeepNorm."
            )
        if self.passed:
            return f"DeepNorm as in the paper, at {layers}."
        named = ", ".join(row.name for row in self.rows if row.status == self.verdict)
        return f"Departs from DeepNorm: {named}." if self.verdict == "FAIL" else f"Could not be judged: {named}."

    def __getitem__(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [self.headline]
        for row in self.rows:
            lines.append(f"{row.status:7}  {row.name:{width}}  {row.found}; expected {row.expected}")
            if row.status != "PASS" and row.mend:
                lines.append(" " * (width + 11) + row.mend)
            if row.status == "FAIL":
                lines.append(" " * (width + 11) + f"See {link(row.room)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        rows = [asdict(row) | {"page": link(row.room) if row.room else ""} for row in self.rows]
        return {
            "passed": self.passed,
            "verdict": self.verdict,
            "design": self.design and self.design.name,
            "headline": self.headline,
            "rows": rows,
        }


def review(
    model: nn.Module,
    batch: Inputs | None = None,
    *,
    sublayers: Sequence[SubLayerView] | None = None,
    run: Callable[[nn.Module], Any] | None = None,
    depth: tuple[int, int] | None = None,
) -> Review:
    """Check a freshly initialised model that claims DeepNorm.

    Runs the model once in evaluation and once in training mode, without dropout's randomness, and finds its sub-layers
    by what they do: a sum of the stream and a branch, with a norm before or behind. Encoder and decoder are told apart
    by the attention mask, and so are time and batch. The model, its buffers, gradients, hooks, mode and random state
    are afterwards what they were.

    Args:
        model: any model; freshly initialised, since training changes the gains.
        batch: what to run it on: a :class:`Batch` for our models; for others the tensor, the tuple of tensors, or the
            dict of tensors by keyword that the model is called with. By default our models and torch.nn's encoders get
            random inputs. Two sequences of three tokens or more, without padding, show most.
        sublayers: where to look, from the bottom up, encoder first, if nothing is found or too little.
        run: calls the model and returns its output, where ``model(batch)`` is not enough.
        depth: layers of encoder and decoder, if the sub-layers do not tell.

    Raises:
        TypeError: the model is not a torch.nn.Module, or the batch is not what such a model reads.
        ValueError: no sub-layers were found, batch and run were both given, or nothing tells how to run the model, or
            how many layers it has; the message says what to type.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"review checks a torch.nn.Module, and got {type(model).__name__}: review(model, batch).")
    if batch is not None and run is not None:
        raise ValueError("Give review either batch or run, not both: run has its own inputs.")
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    if sublayers is None and isinstance(model, Model):
        sublayers = views_of_ours(model)
    if not any(True for _ in model.parameters()) or (sublayers is not None and not sublayers):
        raise Unseen(UNSEEN)
    run = run or run_on(model, batch)
    modes: list[dict[str, Row]] = []
    with observed(model):
        model.eval()
        trace = Trace(model, run)
        first = _look(trace, sublayers)
        if not first:
            raise Unseen(UNSEEN)
        _name(first, depth)
        alphas, betas = _constants(first, depth)
        unseen = _unseen(trace, first, sublayers)
        modes.append(rows.in_one_mode(Look(first, unseen, _gradients(model, trace, first)), alphas))
        model.train()
        second = Trace(model, run)
        subs = carry(first, trace, second)
        if subs is None:
            subs = _look(second, sublayers)
            _name(subs, depth, first)
            unseen = _unseen(second, subs, sublayers)
        modes.append(rows.in_one_mode(Look(subs, unseen, _gradients(model, second, subs)), alphas))
    seen = {name: rows.of_both(row, modes[1][name]) for name, row in modes[0].items()}
    for row in (
        rows.independent(first),
        rows.gains("gain of value, output and FFN", first, SCALED, betas, betas),
        rows.gains("gain of query and key", first, ("query", "key"), dict.fromkeys(betas, 1.0), betas),
    ):
        seen[row.name] = row
    found = tuple(seen[name] for name in ORDER)
    plain = seen["norm outside"].status == "FAIL" or seen["α on the skip"].status == "FAIL"
    return Review(found, design(first) if plain else None, _depth(first, depth))


def find_sublayers(model: nn.Module, batch: Inputs | None = None) -> list[SubLayerView]:
    """The sub-layers that :func:`review` finds in a model run on a batch, to be completed by hand where it needs that.

    Raises:
        TypeError, ValueError: as for :func:`review`; a model in which nothing is found gives an empty list.
    """
    if isinstance(model, Model):
        return views_of_ours(model)
    run = run_on(model, batch)
    with observed(model):
        model.eval()
        subs = find(Trace(model, run))
        _name(subs, None)
    return [sub.view for sub in subs]


def _look(trace: Trace, views: Sequence[SubLayerView] | None) -> list[SubLayer]:
    """The sub-layers of a run: those at the views, or all that are found."""
    return find(trace) if views is None else follow(trace, [replace(view) for view in views])


def _unseen(trace: Trace, subs: Sequence[SubLayer], views: Sequence[SubLayerView] | None) -> str:
    """A sentence on what could not be seen, empty if all was."""
    if views is not None:
        count = len(views) - len(subs)
        return f"{count} of {len(views)} sub-layers could not be watched" if count else ""
    count = missed(trace, subs)
    return f"{count} matrices belong to no sub-layer that was found: to branches too faint to see?" if count else ""


def _name(subs: Sequence[SubLayer], depth: tuple[int, int] | None, known: Sequence[SubLayer] = ()) -> None:
    """Name kinds, matrices and stacks, as they are known or as they are found.

    A decoder's tokens see earlier ones only, or it has cross-attention; an encoder's see all. What follows the stream
    of the sub-layer below is of the same stack.
    """
    if len(subs) == len(known):
        for sub, other in zip(subs, known, strict=True):
            sub.view, sub.kind = other.view, other.kind
        return
    for sub in subs:
        assign(sub)
    for piece in pieces(subs):
        name: StackName = "encoder" if _sees_later(piece) else "decoder"
        if depth is not None and not all(depth):
            name = "encoder" if depth[0] else "decoder"
        for sub in piece:
            sub.view.stack = sub.view.stack or name


def _sees_later(piece: Sequence[SubLayer]) -> bool:
    if any(sub.kind == "cross" for sub in piece):
        return False
    found = (layout(sub) for sub in piece if sub.kind == "attention")
    return any(one.causal is False for one in found if one is not None and one.clear)


def _depth(subs: Sequence[SubLayer], depth: tuple[int, int] | None) -> tuple[int, int]:
    """Layers of encoder and decoder."""
    counts = Counter(sub.view.stack for sub in subs if sub.kind == "ffn")
    return depth if depth is not None else (counts["encoder"], counts["decoder"])


def _constants(subs: Sequence[SubLayer], depth: tuple[int, int] | None) -> tuple[dict[str, float], dict[str, float]]:
    """α and β by stack. Two stacks of which none looks at the other are two models."""
    N, M = _depth(subs, depth)
    if not (N or M):
        raise UnknownDepth("How many layers does this model have? review(model, …, depth=(N, M)), encoder and decoder.")
    if not (N and M):
        for sub in subs:
            sub.view.stack = "encoder" if N else "decoder"
    joined = depth is not None or any(sub.kind == "cross" for sub in subs)
    both = deepnorm_constants(N, M)
    encoder, decoder = (both, both) if joined or not (N and M) else (deepnorm_constants(N, 0), deepnorm_constants(0, M))
    found = {"encoder": encoder.encoder, "decoder": decoder.decoder}
    known = {name: stack for name, stack in found.items() if stack is not None}
    return {name: stack.alpha for name, stack in known.items()}, {name: stack.beta for name, stack in known.items()}


def _gradients(model: nn.Module, trace: Trace, subs: Sequence[SubLayer]) -> list[Tensor | None]:
    """Gradients of all last matrices for a random signal at the top, None for what is not a part of a parameter."""
    parameters: dict[int, list[nn.Parameter]] = {}
    for parameter in model.parameters():
        parameters.setdefault(parameter.untyped_storage().data_ptr(), []).append(parameter)
    lasts = [sub.view.weights.get("ffn_out", sub.view.weights.get("output")) for sub in subs]
    owners = [None if weight is None else _owner(weight, parameters) for weight in lasts]
    known = list(dict.fromkeys(owner for owner in owners if owner is not None))
    if not known or not trace.output.requires_grad:
        return [None] * len(subs)
    signal = torch.randn(trace.output.shape, generator=torch.Generator().manual_seed(1)).to(trace.output)
    goal = (trace.output * signal).sum()
    gradients = torch.autograd.grad(goal, known, retain_graph=True, allow_unused=True)
    found = dict(zip(known, gradients, strict=True))
    return [
        None if weight is None or owner is None or found[owner] is None else _part(found[owner], weight, owner)
        for weight, owner in zip(lasts, owners, strict=True)
    ]


def _owner(weight: Tensor, parameters: dict[int, list[nn.Parameter]]) -> nn.Parameter | None:
    """The parameter that this weight is, or is a slice of; ``parameters`` by where they are stored."""
    for parameter in parameters.get(weight.untyped_storage().data_ptr(), []):
        start = parameter.storage_offset()
        if start <= weight.storage_offset() < start + parameter.numel():
            return parameter
    return None


def _part(gradient: Tensor, weight: Tensor, owner: nn.Parameter) -> Tensor:
    """The slice of a parameter's gradient that belongs to a slice of the parameter."""
    if weight is owner or not owner.is_contiguous():
        return gradient
    offset = weight.storage_offset() - owner.storage_offset()
    return gradient.contiguous().as_strided(weight.shape, weight.stride(), offset)

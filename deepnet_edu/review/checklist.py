"""Is this DeepNorm? A checklist for anybody's PyTorch model, judged by what it does and not by how it is written.

Paper: x ← LN(αx + F(x)); Xavier-normal, gain β on value, output and feed-forward weights, 1 on query and key
(arXiv 2203.00555, Figure 2).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepnet_edu.models import Batch
from deepnet_edu.probing.watch import differentiable, input_share, token_similarity, undisturbed
from deepnet_edu.record import MAX_TOKEN_SIMILARITY
from deepnet_edu.review.views import SubLayerView, find_sublayers, run_on
from deepnet_edu.scaling import deepnorm_constants

#: Relative error up to which a fitted α or a measured gain counts as the paper's.
TOLERANCE = 0.05
#: Weights of different layers that correlate more than this were not drawn independently.
MAX_CORRELATION = 0.2
#: DeepNorm's first and last layer have the same gradient at every depth, within this factor.
MAX_RATIO = 1.6


@dataclass(frozen=True)
class Row:
    """One line of the checklist: what was found, what was expected, and what to mend where that is not the same."""

    name: str
    status: Literal["PASS", "FAIL", "UNKNOWN"]
    found: str
    expected: str
    mend: str = ""


@dataclass(frozen=True)
class Review:
    """The checklist. ``passed``: nothing failed, and nothing remained unknown."""

    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether every row says PASS."""
        return all(row.status == "PASS" for row in self.rows)

    def __getitem__(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = []
        for row in self.rows:
            lines.append(f"{row.status:7}  {row.name:{width}}  {row.found}; expected {row.expected}")
            if row.status != "PASS" and row.mend:
                lines.append(" " * (width + 11) + row.mend)
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"passed": self.passed, "rows": [asdict(row) for row in self.rows]}


@dataclass
class _Seen:
    """What passed one sub-layer during a run: F's input and output, the norm's input and output, and who came first."""

    branch_in: list[Tensor] = field(default_factory=list)
    branch_out: list[Tensor] = field(default_factory=list)
    norm_in: list[Tensor] = field(default_factory=list)
    norm_out: list[Tensor] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return all((self.branch_in, self.branch_out, self.norm_in, self.norm_out))

    @property
    def norm_is_inside(self) -> bool:
        """Whether F reads what the norm gives."""
        return self.norm_out[0].shape == self.branch_in[0].shape and torch.equal(self.norm_out[0], self.branch_in[0])


def review(
    model: nn.Module,
    batch: Batch | Tensor | tuple[Tensor, ...] | None = None,
    *,
    sublayers: Sequence[SubLayerView] | None = None,
    run: Callable[[nn.Module], Tensor] | None = None,
    depth: tuple[int, int] | None = None,
) -> Review:
    """Check a freshly initialised model that claims DeepNorm.

    Finds its way in our models, in torch.nn's Transformer layers, and in layers with the attribute names of fairseq and
    TorchScale; one that torch.compile wrapped is unwrapped. The model, its gradients, mode and random state are
    afterwards what they were.

    Args:
        model: any model; freshly initialised, since training changes the gains.
        batch: what to run it on: a :class:`Batch` for our models, the input tensor (or a tuple of them) that another
            model is called with. By default our models and torch.nn's encoders get random inputs.
        sublayers: where to look, from the bottom up, encoder first, if the model is of another make.
        run: calls the model and returns its output, (B, T, …), where ``model(batch)`` is not enough.
        depth: layers of encoder and decoder, if the sub-layers do not tell.

    Raises:
        TypeError: the model is not a torch.nn.Module, or the batch is not what such a model reads.
        ValueError: no sub-layers were found, batch and run were both given, or nothing tells how to run the model; the
            message says what to type.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"review checks a torch.nn.Module, and got {type(model).__name__}: review(model, batch).")
    if batch is not None and run is not None:
        raise ValueError("Give review either batch or run, not both: run has its own inputs.")
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper calls no hooks inside it
    views = list(sublayers) if sublayers is not None else find_sublayers(model)
    if not views:
        raise ValueError(
            "No attention or feed-forward layers were recognised: name them, "
            "review(model, sublayers=[SubLayerView(branch=layer.attention, norm=layer.norm1, "
            "weights={'value': layer.attention.v.weight, …}), …], run=lambda model: model(x))."
        )
    run = run or run_on(model, batch)
    seen, gradients = _watch(model, views, run)
    N, M = depth if depth is not None else _depth(views)
    if not (N and M):  # a single stack is what it is called with
        views = [replace(view, stack="encoder" if N else "decoder") for view in views]
    constants = deepnorm_constants(N, M)
    expected = {"encoder": constants.encoder, "decoder": constants.decoder}
    alphas = {name: stack.alpha for name, stack in expected.items() if stack is not None}
    betas = {name: stack.beta for name, stack in expected.items() if stack is not None}
    return Review(
        (
            _skip(views, seen, alphas),
            _norm_outside(seen),
            _independent(views),
            _gains("gain of value, output and FFN", views, ("value", "output", "ffn_in", "ffn_gate", "ffn_out"), betas),
            _gains("gain of query and key", views, ("query", "key"), dict.fromkeys(betas, 1.0)),
            _signal(views, seen, gradients),
        )
    )


def _depth(views: Sequence[SubLayerView]) -> tuple[int, int]:
    """Layers of encoder and decoder: as many as there are feed-forward branches."""
    counts = Counter(view.stack for view in views if "ffn_out" in view.weights)
    return counts["encoder"], counts["decoder"]


# --- looking


def _watch(
    model: nn.Module, views: Sequence[SubLayerView], run: Callable[[nn.Module], Tensor]
) -> tuple[list[_Seen], list[Tensor | None]]:
    """One run with everything noted, and the gradients of all last matrices for a random signal at the top."""
    seen = [_Seen() for _ in views]
    parameters = list(model.parameters())
    with ExitStack() as stack:
        for view, notes in zip(views, seen, strict=True):
            hooks = [
                (view.first or view.branch).register_forward_pre_hook(_keep_input(notes.branch_in), with_kwargs=True),
                view.branch.register_forward_hook(_keep_output(notes.branch_out)),
            ]
            if view.norm is not None:
                hooks.append(view.norm.register_forward_pre_hook(_keep_input(notes.norm_in), with_kwargs=True))
                hooks.append(view.norm.register_forward_hook(_keep_output(notes.norm_out)))
            for hook in hooks:
                stack.callback(hook.remove)
        stack.enter_context(undisturbed(model))
        stack.enter_context(differentiable(parameters))
        stack.enter_context(torch.enable_grad())
        output = run(model)
        signal = torch.randn(output.shape, generator=torch.Generator().manual_seed(1)).to(output)
        lasts = [view.weights.get("ffn_out", view.weights.get("output")) for view in views]
        owners = [_owner(weight, parameters) for weight in lasts]
        known = [owner for owner in owners if owner is not None]
        found = dict(zip(known, torch.autograd.grad((output * signal).sum(), known, allow_unused=True), strict=True))
    return seen, [None if owner is None else found[owner] for owner in owners]


def _owner(weight: Tensor | None, parameters: Sequence[nn.Parameter]) -> nn.Parameter | None:
    """The parameter that is this weight."""
    return next((parameter for parameter in parameters if parameter is weight), None)


def _keep_input(notes: list[Tensor]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        value = args[0] if args else kwargs.get("query", next(iter(kwargs.values())))
        notes.append(value.detach())

    return hook


def _keep_output(notes: list[Tensor]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        notes.append((output[0] if isinstance(output, tuple) else output).detach())

    return hook


def _fit(target: Tensor, x: Tensor, f: Tensor) -> tuple[float, float, float]:
    """a and b of target ≈ a·x + b·f by least squares, and the part of the target that is left."""
    columns = torch.stack([x.flatten(), f.flatten()], dim=1).double()
    goal = target.flatten().double()
    a, b = torch.linalg.lstsq(columns, goal[:, None]).solution.flatten().tolist()
    left = (goal - columns @ torch.tensor([a, b], dtype=torch.double, device=goal.device)).norm() / goal.norm()
    return a, b, left.item()


# --- judging


def _skip(views: Sequence[SubLayerView], seen: Sequence[_Seen], alphas: dict[str, float]) -> Row:
    name = "α on the skip"
    expected = " and ".join(f"α = {alpha:.4g} ({stack})" for stack, alpha in alphas.items())
    fits: list[tuple[float, float, float, float]] = []
    for i, (view, notes) in enumerate(zip(views, seen, strict=True)):
        if not notes.complete:
            continue
        if not notes.norm_is_inside:
            target, x = notes.norm_in[0], notes.branch_in[0]
        else:  # x + F(LN(x)): the sum is what the next norm sees
            above = zip(seen[i + 1 :], views[i + 1 :], strict=True)
            after = [s.norm_in[0] for s, v in above if v.stack == view.stack and s.norm_in]
            if not after:
                continue
            target, x = after[0], notes.norm_in[0]
        f = notes.branch_out[0]
        if not target.shape == x.shape == f.shape:
            continue
        if torch.isfinite(target).all() and torch.isfinite(f).all():
            fits.append((*_fit(target, x, f), alphas[view.stack]))
        else:
            return Row(name, "FAIL", "numbers that are not finite", expected, "The stream overflows: see the norm.")
    if not fits:
        return Row(name, "UNKNOWN", "no sub-layer with a norm and a branch that could be watched", expected)
    a, b, left, alpha = max(fits, key=lambda fit: max(abs(fit[0] / (fit[1] * fit[3]) - 1) if fit[1] else 9.0, fit[2]))
    found = f"the norm sees {a:.4g}·x + {b:.4g}·F(x)"
    if left > TOLERANCE:
        return Row(name, "UNKNOWN", f"{found} and {left:.0%} that is neither", expected, "Is there another sum?")
    if abs(a / (b * alpha) - 1) <= TOLERANCE:
        return Row(name, "PASS", found, expected)
    mend = "α is of another depth or exponent."
    if abs(b / (a * alpha) - 1) <= TOLERANCE:
        mend = "α multiplies the branch: write norm(alpha * x + f), not norm(x + alpha * f)."
    elif abs(a / b - 1) <= TOLERANCE:
        mend = "There is no α: write norm(alpha * x + f)."
    return Row(name, "FAIL", found, expected, mend)


def _norm_outside(seen: Sequence[_Seen]) -> Row:
    name, expected = "norm outside", "F reads the stream, and the norm sees the sum"
    known = [notes for notes in seen if notes.complete]
    if not known:
        return Row(name, "UNKNOWN", "no norm could be watched", expected)
    inside = sum(notes.norm_is_inside for notes in known)
    if inside:
        return Row(
            name,
            "FAIL",
            f"in {inside} of {len(known)} sub-layers F reads the norm's output: Pre-LN",
            expected,
            "With α on the skip a Pre-LN stream grows as α to the power of the depth: put the norm after the sum.",
        )
    return Row(name, "PASS", "the norm sees the sum", expected)


def _independent(views: Sequence[SubLayerView]) -> Row:
    name, expected = "independent layers", f"weights of different layers correlate by less than {MAX_CORRELATION}"
    by_role: dict[tuple[str, str, torch.Size], list[Tensor]] = {}
    for view in views:
        for role, weight in view.weights.items():
            by_role.setdefault((view.stack, role, weight.shape), []).append(weight.detach())
    highest = 0.0
    for weights in by_role.values():
        flat = [weight.flatten().double() for weight in weights]
        for one, other in pairwise(flat):
            one, other = one - one.mean(), other - other.mean()
            scale = one.norm() * other.norm()
            highest = max(highest, (one @ other / scale).abs().item() if scale > 0 else 0.0)
    found = f"neighbours correlate by {highest:.2f} at most"
    if highest > MAX_CORRELATION:
        mend = "Layers are copies of one: build each anew. Copies add up in amplitude, and no α survives that."
        return Row(name, "FAIL", found, expected, mend)
    return Row(name, "PASS", found, expected)


def _gains(name: str, views: Sequence[SubLayerView], roles: tuple[str, ...], gains: dict[str, float]) -> Row:
    expected = " and ".join(f"{gain:.4g} ({stack})" for stack, gain in gains.items())
    found: dict[tuple[str, str], list[float]] = {}
    for view in views:
        for role in roles:
            if role in view.weights:
                weight = view.weights[role].detach().double()
                fan_out, fan_in = weight.shape
                gain = weight.square().mean().sqrt().item() * ((fan_in + fan_out) / 2) ** 0.5
                found.setdefault((view.stack, role), []).append(gain)
    if not found:
        return Row(name, "UNKNOWN", "no such weights were found", expected)
    means = {key: sum(values) / len(values) for key, values in found.items()}
    text = ", ".join(f"{role} {value:.4g}" for (_, role), value in means.items())
    wrong = {key: value for key, value in means.items() if abs(value / gains[key[0]] - 1) > TOLERANCE}
    if not wrong:
        return Row(name, "PASS", text, expected)
    (stack, role), value = max(wrong.items(), key=lambda item: abs(item[1] / gains[item[0][0]] - 1))
    mend = (
        f"{role} of the {stack} is {value / gains[stack]:.2g} times what it should be: "
        "nn.init.xavier_normal_(weight, gain=…) on each matrix of its own, also on each third of a packed one."
    )
    return Row(name, "FAIL", text, expected, mend)


def _signal(views: Sequence[SubLayerView], seen: Sequence[_Seen], gradients: Sequence[Tensor | None]) -> Row:
    name = "signal at depth"
    expected = f"token similarity below {MAX_TOKEN_SIMILARITY}, first/last gradient within a factor {MAX_RATIO}"
    facts, failed = [], []
    for stack in dict.fromkeys(view.stack for view in views):
        own = [i for i, view in enumerate(views) if view.stack == stack]
        complete = [seen[i] for i in own if seen[i].complete]
        if complete and complete[-1].norm_out[0].ndim == 3:
            first, top = complete[0].branch_in[0], complete[-1].norm_out[0]
            similarity = token_similarity(top).item()
            share = input_share(first, top).item() if first.shape == top.shape else float("nan")
            facts.append(f"{stack}: token similarity {similarity:.3f}, input share {share:.2g}")
            if not similarity < MAX_TOKEN_SIMILARITY:
                failed.append("tokens have become alike")
        ffn = [gradients[i] for i in own if "ffn_out" in views[i].weights]
        norms = [gradient.norm().item() for gradient in ffn if gradient is not None]
        if len(norms) > 1:
            ratio = norms[0] / norms[-1] if norms[-1] else float("inf")
            facts.append(f"first/last gradient {ratio:.2g}")
            if not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
                failed.append("the gradient changes on its way down")
    if not facts:
        return Row(name, "UNKNOWN", "nothing could be watched", expected)
    mend = f"{' and '.join(failed)}: mend the rows above first." if failed else ""
    return Row(name, "FAIL" if failed else "PASS", ", ".join(facts), expected, mend)

"""The lines of the checklist, each judged from what was seen in a run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from deepnet_edu.probing.watch import input_share, token_similarity
from deepnet_edu.profiles import MAX_TOKEN_SIMILARITY
from deepnet_edu.review.dependence import Layout, dependence, layout
from deepnet_edu.review.forms import SubLayer
from deepnet_edu.review.museum import ROOM_OF_ROW
from deepnet_edu.review.recognise import TOLERANCE, design, room_of_alpha, room_of_gains
from deepnet_edu.review.sums import fit
from deepnet_edu.review.trace import Activation

#: Standard errors of its own that the gain of a single matrix may be off besides.
ERRORS = 4.0
#: Weights of different layers that correlate more than this were not drawn independently.
MAX_CORRELATION = 0.2
#: Entries of a matrix that are compared with those of others.
ENTRIES = 4096
#: DeepNorm's first and last layer have the same gradient at every depth, within this factor.
MAX_RATIO = 1.6

NAME_MODULES = "Name the modules: review(model, sublayers=[SubLayerView(branch=…, norm=…), …])."
NAME_WEIGHTS = "Name them: SubLayerView(branch=…, norm=…, weights={'value': …, 'output': …})."
IN_DOUBLE = "Review it in double precision: model.double(), with inputs of float64."
Status = Literal["PASS", "FAIL", "UNKNOWN"]


@dataclass(frozen=True)
class Row:
    """One line of the checklist: what was found, what was expected, and what to change where that is not the same.

    ``room`` is the slug of the museum's room about it, empty where the row passes.
    """

    name: str
    status: Status
    found: str
    expected: str
    mend: str = ""
    room: str = ""

    def __post_init__(self) -> None:
        known = {"PASS": "", "FAIL": self.room or ROOM_OF_ROW.get(self.name, ""), "UNKNOWN": "unseen"}
        object.__setattr__(self, "room", known[self.status])


@dataclass
class Look:
    """One run: the sub-layers in it, what could not be seen, and the gradients of their last matrices."""

    subs: list[SubLayer]
    unseen: str
    gradients: list[Tensor | None]

    def without(self, known: int) -> str:
        """What cannot be said if ``known`` of the sub-layers tell."""
        n = len(self.subs)
        if self.faint and known < n:
            return f"{self.faint} branches are too faint beside their stream to be told from rounding"
        return self.unseen or (f"{n - known} of {n} sub-layers could not be watched" if known < n else "")

    @cached_property
    def faint(self) -> int:
        """How many branches are lost in rounding."""
        return sum(sub.faint for sub in self.subs)

    @property
    def remedy(self) -> str:
        """What to type to see more."""
        return IN_DOUBLE if self.faint else NAME_MODULES

    def stack(self, name: str) -> list[SubLayer]:
        """The sub-layers of one stack."""
        return [sub for sub in self.subs if sub.view.stack == name]


def in_one_mode(look: Look, alphas: dict[str, float]) -> dict[str, Row]:
    """The rows that a run decides, by name."""
    found = (_skip(look, alphas), _norm_outside(look), _norm_gain(look), _gradient_through(look), _signal(look))
    return {row.name: row for row in found}


def of_both(evaluation: Row, training: Row) -> Row:
    """The worse of the rows of both modes, with its mode where the other one is better."""
    order = ("PASS", "UNKNOWN", "FAIL")
    if evaluation.status == training.status:
        return evaluation
    worst, mode = max((evaluation, "evaluation"), (training, "training"), key=lambda row: order.index(row[0].status))
    hint = "The other mode is right: do the same in both. " if worst.status == "FAIL" else ""
    return replace(worst, found=f"in {mode} mode {worst.found}", mend=(hint + worst.mend).strip())


def _skip(look: Look, alphas: dict[str, float]) -> Row:
    name = "α on the skip"
    expected = " and ".join(f"α = {alpha:.4g} ({stack})" for stack, alpha in alphas.items())
    fits: list[tuple[float, float, float, float, bool]] = []
    for sub in look.subs:
        total = sub.total
        if total is None or not (total.fits(sub.x) and total.fits(sub.f)) or sub.faint:
            continue
        if not all(torch.isfinite(one.sample).all() for one in (total, sub.x, sub.f)):
            return Row(name, "FAIL", "numbers that are not finite", expected, "The stream overflows: see the norm.")
        (a, b, *_), left = fit(total, [sub.x, sub.f, *sub.beside])
        fits.append((a, b, left, alphas[sub.view.stack or "decoder"], bool(sub.beside)))
    if not fits:
        found = look.without(0) or "no sub-layer with a norm and a branch that could be watched"
        return Row(name, "UNKNOWN", found, expected, look.remedy)
    a, b, left, alpha, parallel = max(
        fits, key=lambda one: max(abs(one[0] / (one[1] * one[3]) - 1) if one[1] else 9.0, one[2])
    )
    found = f"the norm sees {a:.4g}·x + {b:.4g}·F(x)" + (" and another branch's" if parallel else "")
    if left > TOLERANCE:
        return Row(name, "UNKNOWN", f"{found} and {left:.0%} that is neither", expected, "Is there another sum?")
    if parallel:
        mend = "Branches share one sum: DeepNorm gives each its own, and a norm."
        return Row(name, "FAIL", found, expected, mend, "another-design")
    if b and abs(a / (b * alpha) - 1) <= TOLERANCE:
        if unseen := look.without(len(fits)):
            return Row(name, "UNKNOWN", f"{found}, but {unseen}", expected, look.remedy)
        return Row(name, "PASS", found, expected)
    mend = "α is of another depth or exponent."
    if a and abs(b / (a * alpha) - 1) <= TOLERANCE:
        mend = "α multiplies the branch: write norm(alpha * x + f), not norm(x + alpha * f)."
    elif b and abs(a / b - 1) <= TOLERANCE:
        mend = "There is no α: write norm(alpha * x + f)."
    return Row(name, "FAIL", found, expected, mend, room_of_alpha(a / b if b else 0.0, alpha))


def _norm_outside(look: Look) -> Row:
    name, expected = "norm outside", "F reads the stream, and the norm sees the sum"
    known = [sub for sub in look.subs if sub.norm is not None and not sub.faint]
    if not known:
        found = look.without(0) if look.faint else "no norm could be watched"
        return Row(name, "UNKNOWN", found, expected, look.remedy)
    inside = sum(sub.inside for sub in known)
    if inside:
        return Row(
            name,
            "FAIL",
            f"in {inside} of {len(known)} sub-layers F reads the norm's output: Pre-LN",
            expected,
            "With α on the skip a Pre-LN stream grows as α to the power of the depth: put the norm after the sum.",
            "another-design" if design(known) else "scaled-skip-without-norm",
        )
    alone = sum(not sub.outside for sub in known)
    if alone:
        found = f"in {alone} of {len(known)} sub-layers no norm sees the sum, only the branch's output"
        return Row(name, "FAIL", found, expected, "Put the norm after the sum.")
    if unseen := look.without(len(known)):
        return Row(name, "UNKNOWN", f"the norm sees the sum, but {unseen}", expected, look.remedy)
    return Row(name, "PASS", "the norm sees the sum", expected)


def independent(subs: Sequence[SubLayer]) -> Row:
    """Whether the matrices of any two layers were drawn independently."""
    name, expected = "independent layers", f"weights of different layers correlate by less than {MAX_CORRELATION}"
    by_role: dict[tuple[str, torch.Size], list[Tensor]] = {}
    for sub in subs:
        for role, weight in sub.view.weights.items():
            by_role.setdefault((role, weight.shape), []).append(_entries(weight))
    if not by_role:
        return Row(name, "UNKNOWN", "no matrices were recognised", expected, NAME_WEIGHTS)
    highest, limit = 0.0, MAX_CORRELATION
    for weights in by_role.values():
        if len(weights) < 2:
            continue
        every = torch.stack(weights)
        every = every - every.mean(1, keepdim=True)
        every = every / every.norm(dim=1, keepdim=True).clamp_min(1e-300)
        correlations = (every @ every.T).abs().fill_diagonal_(0)
        # Two independent matrices of n entries correlate by 1/√n.
        chance = 6 / every.shape[1] ** 0.5
        if (found := correlations.max().item()) - max(MAX_CORRELATION, chance) > highest - limit:
            highest, limit = found, max(MAX_CORRELATION, chance)
    found_text = f"layers correlate by {highest:.2f} at most"
    if highest > limit:
        mend = "Layers are copies of one: build each by itself. Copies add up in amplitude, and no α survives that."
        return Row(name, "FAIL", found_text, expected, mend)
    return Row(name, "PASS", found_text, expected)


def _entries(weight: Tensor) -> Tensor:
    flat = weight.detach().flatten()
    if len(flat) > ENTRIES:
        flat = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(0))[:ENTRIES].to(flat.device)]
    return flat.double()


def gains(
    name: str, subs: Sequence[SubLayer], roles: tuple[str, ...], wanted: dict[str, float], betas: dict[str, float]
) -> Row:
    """Xavier gains by role: on average, and layer by layer as far as one matrix can tell."""
    expected = " and ".join(f"{gain:.4g} ({stack})" for stack, gain in wanted.items())
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    default: dict[tuple[str, str], float] = {}
    silent = 0
    attention = "query" in roles
    for sub in subs:
        weights = {role: sub.view.weights[role] for role in roles if role in sub.view.weights}
        silent += not weights and not (attention and sub.kind == "ffn")
        for role, matrix in weights.items():
            weight = matrix.detach().double()
            fan_out, fan_in = weight.shape
            gain = weight.square().mean().sqrt().item() * ((fan_in + fan_out) / 2) ** 0.5
            error = ERRORS / (2 * weight.numel()) ** 0.5
            found.setdefault((sub.view.stack or "decoder", role), []).append((gain, error))
            default[sub.view.stack or "decoder", role] = ((fan_in + fan_out) / (6 * fan_in)) ** 0.5  # nn.Linear's
    if not found:
        return Row(name, "UNKNOWN", "no such weights were found", expected, NAME_WEIGHTS)
    means = {key: sum(gain for gain, _ in values) / len(values) for key, values in found.items()}
    text = ", ".join(f"{role} {value:.4g}" for (_, role), value in means.items())
    wrong = {key: value for key, value in means.items() if abs(value / wanted[key[0]] - 1) > TOLERANCE}
    if wrong:
        (stack, role), value = max(wrong.items(), key=lambda item: abs(item[1] / wanted[item[0][0]] - 1))
        mend = (
            f"{role} of the {stack} is {value / wanted[stack]:.2g} times what it should be: "
            "nn.init.xavier_normal_(weight, gain=…) on each matrix of its own, also on each third of a packed one."
        )
        return Row(name, "FAIL", text, expected, mend, room_of_gains(means, default, wanted, betas))
    single = [
        (abs(gain / wanted[stack] - 1) - error, layer, gain / wanted[stack], role, stack)
        for (stack, role), values in found.items()
        for layer, (gain, error) in enumerate(values)
    ]
    excess, layer, ratio, role, stack = max(single)
    if excess > TOLERANCE:
        mend = (
            f"Right on average only: {role} of the {stack}'s layer {layer + 1} is {ratio:.2g} times what it should be. "
            "Every layer has the same gain."
        )
        return Row(name, "FAIL", text, expected, mend)
    if silent:
        return Row(name, "UNKNOWN", f"{text}; in {silent} sub-layers no matrix was recognised", expected, NAME_WEIGHTS)
    return Row(name, "PASS", text, expected)


def _norm_gain(look: Look) -> Row:
    name, expected = "gain of the norms", "1: γ starts at 1, a bias at 0"
    outputs = [sub.norm.output for sub in look.subs if sub.norm is not None and sub.norm.output is not None]
    if not outputs:
        return Row(name, "UNKNOWN", "no norm could be watched", expected)
    sizes = [output.sample.square().mean().sqrt().item() for output in outputs]
    worst = max(sizes, key=lambda size: abs(size - 1) if size == size else float("inf"))
    found = f"a norm's output has rms {worst:.4g}"
    if not abs(worst - 1) <= TOLERANCE:
        return Row(name, "FAIL", found, expected, "Start every γ at 1: a branch is drawn for a stream of that size.")
    return Row(name, "PASS", found, expected)


def _gradient_through(look: Look) -> Row:
    name, expected = "gradient through F", "every branch passes a gradient to the stream"
    known = [sub for sub in look.subs if sub.x.edge is not None]
    cut = sum(dependence(sub.f, sub.x, None) is None for sub in known)
    if cut:
        found = f"in {cut} of {len(known)} sub-layers no gradient gets from F(x) to x"
        return Row(name, "FAIL", found, expected, "Is there a detach() or a no_grad() in the branch? Take it out.")
    if unseen := look.without(len(known)):
        return Row(name, "UNKNOWN", unseen, expected, NAME_MODULES)
    return Row(name, "PASS", f"it does in all {len(known)} sub-layers", expected)


def _signal(look: Look) -> Row:
    name = "signal at depth"
    expected = f"token similarity below {MAX_TOKEN_SIMILARITY}, first/last gradient within a factor {MAX_RATIO}"
    facts: list[str] = []
    failed: list[str] = []
    unknown: list[str] = []
    for stack in dict.fromkeys(sub.view.stack or "decoder" for sub in look.subs):
        own = look.stack(stack)
        first, top = own[0].x, next((sub.top for sub in reversed(own) if sub.top is not None), None)
        order = _order(own)
        tokens = None if top is None else _tokens(top, first, order)
        if isinstance(tokens, tuple) and tokens[1].shape[1] > 1:
            below, above = tokens
            similarity = token_similarity(above).item()
            share = input_share(below, above).item()
            facts.append(f"{stack}: token similarity {similarity:.3f}, input share {share:.2g}")
            if token_similarity(below).item() > MAX_TOKEN_SIMILARITY:
                unknown.append("the tokens of the batch are equal already: give others")
            elif not similarity < MAX_TOKEN_SIMILARITY:
                failed.append("tokens have become equal")
        else:
            unknown.append(f"{stack}: tokens of one sequence could not be told from those of others")
        pairs = zip(look.subs, look.gradients, strict=True)
        norms = [g.norm().item() for sub, g in pairs if g is not None and sub in own and "ffn_out" in sub.view.weights]
        if len(norms) > 1:
            ratio = norms[0] / norms[-1] if norms[-1] else float("inf")
            facts.append(f"first/last gradient {ratio:.2g}")
            if not 1 / MAX_RATIO <= ratio <= MAX_RATIO:
                failed.append("the gradient changes on its way down")
        elif len(own) > 2:
            unknown.append(f"{stack}: no gradient of a last feed-forward matrix")
    if not facts:
        return Row(name, "UNKNOWN", "nothing could be watched", expected)
    text = ", ".join(facts)
    if failed:
        return Row(name, "FAIL", text, expected, f"{' and '.join(dict.fromkeys(failed))}: fix the rows above first.")
    if unknown:
        return Row(name, "UNKNOWN", f"{text}; {'; '.join(unknown)}", expected)
    return Row(name, "PASS", text, expected)


def _order(subs: Sequence[SubLayer]) -> Layout | None:
    """Which axis is time, from the first attention of a stack that shows it."""
    attentions = [sub for sub in subs if sub.kind == "attention"]
    for sub in attentions:
        if (found := layout(sub)) is not None:
            return found
    return None if attentions else Layout()


def _tokens(top: Activation, first: Activation, order: Layout | None) -> tuple[Tensor, Tensor] | None:
    """A stack's input and output as (B, T, d); where no token sees another, all count as one sequence."""
    if order is None or not order.clear or not top.fits(first):
        return None
    shape = first.shape
    if order.axis is None or len(shape) == 2:
        return first.value[None], top.value[None]
    both = [activation.value.reshape(shape) for activation in (first, top)]
    below, above = (value.transpose(0, 1) if order.axis == 0 else value for value in both)
    return below.float(), above.float()

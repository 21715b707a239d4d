"""What `judge` may say of a model before training, and what training then did: the set from which it was made.

Each model is measured at initialisation (all numbers that a verdict may use) and then trained, its stack alone, on two
tasks: the token map, which each token solves by itself, and the previous token, which needs attention. 60 steps of
AdamW on 128 tokens each; three rates, the largest first, of which the best counts. A model's *learned share* of a task
is 1 - loss/chance, the loss the mean of the last five steps. A run ends as soon as that is what its task asks, and with
it the task: no more is wanted of the number. Decided before the first model was judged:

    trains    at least half of the token map and a quarter of the previous token,
    does not  less than a tenth of both,
    partly    all others.

    python benchmarks/verdicts.py                    # all that is missing
    python benchmarks/verdicts.py --only keel mhc    # measure these again: names, rules, or beginnings of names
    python benchmarks/verdicts.py --table            # write the tables of docs/verdicts.md from the record

Writes results/verdicts_*.json after every model, so that what was interrupted goes on; a row that was deleted is
measured again.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import version
from math import isfinite, isnan, log, nan
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor, nn

from deepnet_edu import Batch, ModelConfig, TrainConfig, build_model, probe, train
from deepnet_edu.data import PreviousToken, TokenMap
from deepnet_edu.files import write_atomic
from deepnet_edu.models import Model
from deepnet_edu.probing import model_update
from deepnet_edu.record import DepthProfile, History
from deepnet_edu.residual import RESIDUALS, Residual, sublayer_kinds
from deepnet_edu.residual.base import State
from deepnet_edu.training import TrainingDiverged
from deepnet_edu.verdict import MAX_UPDATE, MAX_VARIANCE, NEARLY_ALIKE, STILL_INPUT

RESULTS = Path(__file__).parent / "results"
SHAPE = {"d_model": 32, "n_heads": 2, "d_ff": 128, "max_length": 16}
VOCABULARY, SEED, STEPS, WARMUP = 16, 0, 60, 10
RATES = (3e-3, 1e-3, 3e-4)
TASKS: dict[str, Any] = {
    "token_map": TokenMap(vocab_size=VOCABULARY, length=16, batch_size=8),
    "previous_token": PreviousToken(vocab_size=VOCABULARY, length=8, batch_size=16),
}
#: The learned share that each task asks of a model that trains, and the one below which nothing was learned.
ENOUGH = {"token_map": 0.5, "previous_token": 0.25}
NOTHING = 0.1

PAGE = RESULTS.parents[1] / "docs" / "verdicts.md"
#: The thresholds whose place the record shows.
THRESHOLDS = {"similarity": NEARLY_ALIKE, "variance": MAX_VARIANCE, "update": MAX_UPDATE}
LATER = "after three steps"
OUTCOMES = ("trains", "partly", "does not")
WORDS = ("PASS", "UNSURE", "FAIL", "refused")
PARTS = ("rules", "changed", "deep", "untrained")

Change = Callable[[Model], None]


@dataclass(frozen=True)
class Case:
    """One model of the set.

    Attributes:
        name: of it; begins with its rule.
        config: its shape.
        change: what is done to it after it was built.
        batch: what is done to the batch that it is measured on.
        parameters: which of them are trained.
        trained: whether it is; others are there for what theory and measurement say of them.
    """

    name: str
    config: ModelConfig
    change: Change | None = None
    batch: Callable[[Batch], Batch] | None = None
    parameters: str = "stack"
    trained: bool = True


# --- what is done to models


def scaled(factor: float, *roles: str, layers: Callable[[int, int], bool] = lambda layer, n: True) -> Change:
    """The weights of these roles, or all of the branches', times a factor, in the layers that are chosen."""

    @torch.no_grad()
    def change(model: Model) -> None:
        for sublayer in model.sublayers():
            place = sublayer.residual.place
            for role, weight in sublayer.branch.weights().items():
                if (not roles or role in roles) and layers(place.layer, place.n_layers):
                    weight.mul_(factor)

    return change


@torch.no_grad()
def cloned(model: Model) -> None:
    """Every layer has the first one's weights, as copy.deepcopy makes them."""
    for stack in model.stacks().values():
        for layer in stack.layers[1:]:
            layer.load_state_dict(stack.layers[0].state_dict(), strict=False)  # the last has a final norm of its own


def embedding(factor: float) -> Change:
    """All that enters the stacks, times a factor."""

    @torch.no_grad()
    def change(model: Model) -> None:
        for end in model.embeddings():
            for parameter in end.parameters():
                parameter.mul_(factor)

    return change


@torch.no_grad()
def rows_alike(model: Model) -> None:
    """All tokens have the embedding of the first."""
    for end in model.embeddings():
        table = end.token.weight
        table.copy_(table[:1].expand_as(table))


def gamma(factor: float) -> Change:
    """The gains of all norms of the rules, times a factor."""

    @torch.no_grad()
    def change(model: Model) -> None:
        for rule in model.rules():
            for module in rule.modules():
                if isinstance(module, nn.LayerNorm | nn.RMSNorm):
                    module.weight.mul_(factor)

    return change


@torch.no_grad()
def head_of_zeros(model: Model) -> None:
    """The head is 0: no gradient reaches the stack before the head has moved."""
    model.head.weight.zero_()


@torch.no_grad()
def defaults_of_pytorch(model: Model) -> None:
    """Every linear layer as PyTorch draws it, uniform with 1/√fan_in."""
    torch.manual_seed(SEED)
    for sublayer in model.sublayers():
        for module in sublayer.branch.children():
            if isinstance(module, nn.Linear):
                module.reset_parameters()


@torch.no_grad()
def rank_one(model: Model) -> None:
    """Value and output of every attention have one direction each."""
    for sublayer in model.sublayers():
        for role, weight in sublayer.branch.weights().items():
            if role in ("value", "output"):
                u, s, v = torch.linalg.svd(weight)
                weight.copy_(s.norm() * torch.outer(u[:, 0], v[0]))


@torch.no_grad()
def never_active(model: Model) -> None:
    """A bias that puts every activation where ReLU is flat."""
    for sublayer in model.sublayers():
        if hasattr(sublayer.branch, "ffn_in"):
            sublayer.branch.ffn_in.bias.fill_(-30.0)


@torch.no_grad()
def last_norm_of_zeros(model: Model) -> None:
    """γ = 0 in the last norm, as some initialise it."""
    rule = model.rules()[-1]
    (getattr(rule, "final_norm", None) or rule.norm).weight.zero_()


def rewritten(make: Callable[[type[Residual]], type[Residual]]) -> Change:
    """Another formula at every place."""

    def change(model: Model) -> None:
        for rule in model.rules():
            rule.__class__ = make(type(rule))
        model.use_path("plain")  # which runs whatever formula stands there

    return change


def alpha_on_the_branch(cls: type[Residual]) -> type[Residual]:
    """LN(x + αF): the constant in the wrong place."""

    class Wrong(cls):  # type: ignore[misc,valid-type]
        def write(self, state: State, branch: Tensor) -> State:
            return (self.norm(state[0] + self.alpha * branch),)

    return Wrong


def norm_of_the_branch_alone(cls: type[Residual]) -> type[Residual]:
    """αx + LN(F): the skip outside of the norm."""

    class Wrong(cls):  # type: ignore[misc,valid-type]
        def write(self, state: State, branch: Tensor) -> State:
            return (self.alpha * state[0] + self.norm(branch),)

    return Wrong


def no_skip(cls: type[Residual]) -> type[Residual]:
    """LN(F): somebody forgot the residual connection."""

    class Wrong(cls):  # type: ignore[misc,valid-type]
        def write(self, state: State, branch: Tensor) -> State:
            return (self.norm(branch),)

    return Wrong


def alpha_on_the_skip(alpha: float) -> Callable[[type[Residual]], type[Residual]]:
    """Pre-LN with DeepNorm's α: αx + F(LN(x))."""

    def make(cls: type[Residual]) -> type[Residual]:
        class Wrong(cls):  # type: ignore[misc,valid-type]
            def write(self, state: State, branch: Tensor) -> State:
                return (alpha * state[0] + branch,)

        return Wrong

    return make


def inner(layer: int, n: int) -> bool:
    """Neither the first nor the last layer."""
    return 0 < layer < n - 1


def one_token(batch: Batch) -> Batch:
    """The first token of each sequence."""
    return Batch(batch.inputs[:, :1], batch.targets[:, :1])


def same_token(batch: Batch) -> Batch:
    """Every input is the same token."""
    return replace(batch, inputs=torch.full_like(batch.inputs, 3))


# --- the set


def decoder(rule: str, layers: int, **changes: Any) -> ModelConfig:
    """A small language model."""
    return ModelConfig("decoder", "lm", layers, vocab_size=VOCABULARY, residual=rule, **{**SHAPE, **changes})


def encoder(rule: str, layers: int, **changes: Any) -> ModelConfig:
    """The same with tokens that see all others."""
    return ModelConfig("encoder", "mlm", 0, layers, vocab_size=VOCABULARY, residual=rule, **{**SHAPE, **changes})


def translator(rule: str, layers: int, **changes: Any) -> ModelConfig:
    """Two stacks."""
    shape = {**SHAPE, **changes}
    return ModelConfig("encoder_decoder", "translation", layers, layers, vocab_size=VOCABULARY, residual=rule, **shape)


def patches(rule: str, layers: int) -> ModelConfig:
    """A classifier of images."""
    return ModelConfig("encoder", "classification", 0, layers, n_classes=VOCABULARY, residual=rule, **SHAPE)


def everywhere(rule: str, layers: int) -> Case:
    """A rule as it is, in the first architecture that it is defined for: decoder, encoder, both."""
    defined = RESIDUALS[rule].architectures
    make = decoder if "decoder" in defined else encoder if "encoder" in defined else translator
    return Case(f"{rule}-{layers}", make(rule, layers))


def cases() -> list[Case]:
    """The whole set, in the order in which it is measured."""
    found = [everywhere(rule, 12) for rule in RESIDUALS]
    found += _changed(24)
    found += [everywhere(rule, n) for n in (6, 24) for rule in ("deepnorm", "post_ln", "pre_ln", "sub_ln", "peri_ln")]
    found += [everywhere("post_ln", n) for n in (8, 10, 16, 20)]
    for rule in ("deepnorm", "pre_ln", "post_ln", "sub_ln", "peri_ln"):
        found += [Case(f"{rule}-encoder-{n}", encoder(rule, n)) for n in (12, 48)]
    found += [Case(f"{rule}-translator-8", translator(rule, 8)) for rule in ("deepnorm", "pre_ln", "post_ln")]
    for rule in ("deepnorm", "post_ln"):
        found += [Case(f"{rule}-patches-12", patches(rule, 12)), Case(f"{rule}-one_patch-12", patches(rule, 12))]
    found += [everywhere(rule, 48) for rule in RESIDUALS]
    found += [everywhere(rule, 96) for rule in ("deepnorm", "pre_ln", "post_ln", "sub_ln", "peri_ln", "deepscale_lm")]
    found += [everywhere(rule, 200) for rule in ("deepnorm", "pre_ln", "post_ln")]
    found += [everywhere(rule, 500) for rule in ("deepnorm", "pre_ln", "post_ln")]
    # Not trained: where theory and measurement once said PASS and FAIL.
    shapes = {"d_model": 64, "n_heads": 4, "d_ff": 256}
    for rule in ("post_ln", "pre_ln", "sub_ln", "peri_ln", "deepnorm", "keel", "layernorm_scaling", "deepscale_lm"):
        for n in (12, 96):
            found.append(Case(f"{rule}-wide-{n}", decoder(rule, n, **shapes), trained=False))
            found.append(Case(f"{rule}-wide_encoder-{n}", encoder(rule, n, **shapes), trained=False))
        found.append(Case(f"{rule}-wide-500", decoder(rule, 500, **shapes), trained=False))
    return found


def _changed(n: int) -> list[Case]:
    """Models that something was done to."""

    def case(rule: str, what: str, change: Change | None = None, **settings: Any) -> Case:
        rest = {key: settings.pop(key) for key in ("batch", "parameters") if key in settings}
        return Case(f"{rule}-{n}-{what}", decoder(rule, n, **settings), change, **rest)

    def by_hand(what: str, **constants: float) -> Case:
        return case("deepnorm", what, **constants, not_the_paper=True)

    alpha, beta = (2 * n) ** 0.25, (8 * n) ** -0.25
    found = [
        by_hand("beta_1", beta=1.0),
        by_hand("beta_sign", beta=1 / beta),
        by_hand("beta_third", beta=beta / 3),
        by_hand("beta_hundredth", beta=beta / 100),
        by_hand("beta_times_2", beta=2 * beta),
        by_hand("alpha_1", alpha=1.0),
        by_hand("alpha_inverse", alpha=1 / alpha),
        by_hand("alpha_times_10", alpha=10 * alpha),
        by_hand("alpha_times_1000", alpha=1000 * alpha),
        case("deepnorm", "alpha_on_branch", rewritten(alpha_on_the_branch)),
        case("deepnorm", "norm_of_branch", rewritten(norm_of_the_branch_alone)),
        case("deepnorm", "no_skip", rewritten(no_skip)),
        case("pre_ln", "alpha_on_skip", rewritten(alpha_on_the_skip(alpha))),
        case("pre_ln", "alpha_below_1", rewritten(alpha_on_the_skip(0.9))),
        case("pre_ln", "alpha_1.2", rewritten(alpha_on_the_skip(1.2))),
        case("pre_ln", "alpha_1.5", rewritten(alpha_on_the_skip(1.5))),
        case("deepnorm", "head_0", head_of_zeros, parameters="all"),
        case("deepnorm", "last_norm_0", last_norm_of_zeros),
        case("deepnorm", "relu", activation="relu"),
        case("deepnorm", "swiglu", activation="swiglu"),
        case("deepnorm", "rms", norm="rms"),
        case("deepnorm", "rotary", position="rotary"),
        case("deepnorm", "never_active", never_active, activation="relu"),
        case("pre_ln", "never_active", never_active, activation="relu"),
        case("deepnorm", "rank_one", rank_one),
        case("deepnorm", "rows_alike", rows_alike),
        case("pre_ln", "rows_alike", rows_alike),
        case("deepnorm", "rows_alike_rotary", rows_alike, position="rotary"),
        case("deepnorm", "same_token", batch=same_token),
        case("deepnorm", "same_token_rotary", batch=same_token, position="rotary"),
        case("deepnorm", "one_token", batch=one_token),
    ]
    changes: dict[str, Change] = {
        "embedding_1e3": embedding(1e3),
        "branches_1e-8": scaled(1e-8),
        "last_matrix_0": scaled(0.0, "output", "ffn_out"),
        "embedding_1e6": embedding(1e6),
        "inner_0": scaled(0.0, layers=inner),
        "attention_0": scaled(0.0, "value", "output"),
        "gamma_1e-4": gamma(1e-4),
        "embedding_1e-3": embedding(1e-3),
        "clones": cloned,
        "embedding_30": embedding(30.0),
        "inner_1e-8": scaled(1e-8, layers=inner),
        "lower_half_0": scaled(0.0, layers=lambda layer, n: layer < n // 2),
        "gamma_0.1": gamma(0.1),
        "branches_0.03": scaled(0.03),
        "branches_3": scaled(3.0),
        "branches_0": scaled(0.0),
        "query_key_30": scaled(30.0, "query", "key"),
        "pytorch": defaults_of_pytorch,
        "attention_1e-6": scaled(1e-3, "value", "output"),
        "ffn_0": scaled(0.0, "ffn_in", "ffn_out"),
        "gamma_10": gamma(10.0),
        "query_key_0": scaled(0.0, "query", "key"),
    }
    found += [case(rule, what, change) for what, change in changes.items() for rule in ("pre_ln", "deepnorm")]
    few = ("embedding_1e3", "branches_1e-8", "last_matrix_0", "gamma_1e-4", "embedding_1e-3", "clones", "pytorch")
    return found + [case("post_ln", what, changes[what]) for what in few]


# --- what is measured


@dataclass(frozen=True)
class Prototypes:
    """Images of noise with a class each: the token map of classifiers. Needs no attention."""

    patches: int
    batch_size: int = 64

    @property
    def chance(self) -> float:
        """ln of the number of classes."""
        return log(VOCABULARY)

    def batch(self, generator: torch.Generator) -> Batch:
        """One of the prototypes at each place, and noise of a third of its size."""
        side = 4 * int(self.patches**0.5)
        prototypes = torch.randn(VOCABULARY, 1, side, side, generator=torch.Generator().manual_seed(77))
        chosen = torch.randint(VOCABULARY, (self.batch_size,), generator=generator)
        return Batch(prototypes[chosen] + 0.3 * torch.randn(prototypes[chosen].shape, generator=generator), chosen)


@dataclass(frozen=True)
class Twice:
    """A decoder's task for a translator: both stacks read the same tokens."""

    task: Any

    @property
    def chance(self) -> float:
        """The task's."""
        return float(self.task.chance)

    def batch(self, generator: torch.Generator) -> Batch:
        """The task's batch, read by both."""
        batch = self.task.batch(generator)
        return replace(batch, target_inputs=batch.inputs)


def tasks_of(case: Case) -> dict[str, Any]:
    """The tasks by name. A classifier has one alone: its answer is a mean over patches."""
    if case.config.task == "classification":
        return {"token_map": Prototypes(1 if "one_patch" in case.name else 4)}
    if case.config.task == "translation":
        return {name: Twice(task) for name, task in TASKS.items()}
    return TASKS


def built(case: Case) -> Model:
    """The model of a case."""
    model = build_model(case.config, seed=SEED)
    if case.change is not None:
        case.change(model)
    return model


def measure(case: Case) -> dict[str, Any]:
    """Everything at initialisation that a verdict may use."""
    model = built(case)
    batch = tasks_of(case)["token_map"].batch(torch.Generator().manual_seed(1000 + SEED))
    if case.batch is not None:
        batch = case.batch(batch)
    try:
        profile = probe(model, batch)
    except ValueError as error:
        return {"refused": str(error)}
    found = {"profile": _plain(profile.to_dict()), "updates": _updates(model, batch)}
    gradient = profile.gradient_norm
    if gradient is not None and (gradient == 0).any() and case.trained:
        # What a rule that starts at 0 looks like after a few steps.
        _train(model, case, "token_map", 1e-3, steps=3)
        found[LATER] = {
            "profile": _plain(probe(model, batch).to_dict()),
            "updates": _updates(model, batch),
        }
    return found


def _updates(model: Model, batch: Batch) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for step, rate in (("sgd", 1e-3), ("sign", 1e-5)):
        for group in ("matrices", "norms"):
            try:
                value = model_update(model, batch, step, group, rate)  # type: ignore[arg-type]
            except ValueError:  # a rule without such parameters
                continue
            found[f"{step} {group}"] = float(f"{value:.4g}") if isfinite(value) else None
    return found


def _plain(profile: dict[str, Any]) -> dict[str, Any]:
    """Where a value was taken follows from the shape, and is not kept; four digits of what is."""
    kept = ("variance", "token_similarity", "input_share", "gradient_norm", "input_similarity")
    return {name: profile[name] for name in kept if name in profile}


class _EnoughError(Exception):
    """The run has reached what its task asks."""


def _train(model: Model, case: Case, task: str, rate: float, steps: int = STEPS) -> float:
    """The mean loss of the last five steps; NaN where the run broke."""
    settings = TrainConfig(steps=steps, learning_rate=rate, warmup=WARMUP, parameters=case.parameters, seed=SEED)  # type: ignore[arg-type]
    enough = (1 - ENOUGH[task]) * tasks_of(case)[task].chance
    loss: list[float] = []

    def on_step(history: History) -> None:
        loss.append(history.loss[-1])
        if len(loss) >= WARMUP and sum(loss[-5:]) / 5 <= enough:
            raise _EnoughError

    try:
        train(model, tasks_of(case)[task], settings, progress=False, on_step=on_step)
    except _EnoughError:
        pass
    except (TrainingDiverged, ValueError) as error:
        print("   ", rate, str(error)[:90], flush=True)
        return float("nan")
    return sum(loss[-5:]) / 5


def learned(case: Case, task: str) -> dict[str, Any]:
    """The loss of each rate that was tried, mean of the last five steps, and the best one's share learned."""
    losses: dict[str, float | None] = {}
    chance = tasks_of(case)[task].chance
    best = 0.0
    for rate in RATES:
        mean = _train(built(case), case, task, rate)
        losses[f"{rate:g}"] = round(mean, 4) if isfinite(mean) else None
        best = max(best, 1 - mean / chance) if isfinite(mean) else best
        if best >= ENOUGH[task]:
            break
    return {"loss": losses, "learned": round(best, 4)}


def outcome(row: dict[str, Any]) -> str | None:
    """``"trains"``, ``"partly"`` or ``"does not"``; None where it was not tried."""
    shares = {task: row["training"][task]["learned"] for task in row.get("training", {})}
    if not shares:
        return None
    if all(share >= ENOUGH[task] for task, share in shares.items()):
        return "trains"
    return "does not" if all(share < NOTHING for share in shares.values()) else "partly"


# --- the record


def part(case: Case) -> str:
    """Which file of the record holds it."""
    if not case.trained:
        return "untrained"
    if max(case.config.decoder_layers, case.config.encoder_layers) > 48:
        return "deep"
    return "changed" if case.name.count("-") > 1 else "rules"


def _file(case: Case) -> Path:
    return RESULTS / f"verdicts_{part(case)}.json"


def read() -> dict[str, dict[str, Any]]:
    """All rows by name, in the order of the set; those that are no longer in it are left out."""
    rows = {}
    for file in sorted(RESULTS.glob("verdicts_*.json")):
        rows.update({row["name"]: row for row in json.loads(file.read_text(encoding="utf-8"))["models"]})
    return {case.name: rows[case.name] for case in cases() if case.name in rows}


def _keep(rows: dict[str, dict[str, Any]], case: Case) -> None:
    file = _file(case)
    inside = [rows[one.name] for one in cases() if one.name in rows and _file(one) == file]
    head = {
        "what": "Models at initialisation, and what 60 steps of training their stacks did",
        "command": "python benchmarks/verdicts.py",
        "device": "CPU, one thread",
        "seed": SEED,
        "shape": SHAPE,
        "steps": STEPS,
        "rates": RATES,
        "chance": round(log(VOCABULARY), 4),
    }
    lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in inside)
    write_atomic(file, json.dumps(head, indent=1).removesuffix("\n}") + f',\n "models": [\n{lines}\n]\n}}\n')


# --- what judge says of them


def profile_of(case: Case, kept: dict[str, Any]) -> DepthProfile:
    """The measured profile of a row, with the places that follow from the shape."""
    shape = case.config
    where = [
        (stack, layer, kind)
        for stack, layers in (("encoder", shape.encoder_layers), ("decoder", shape.decoder_layers))
        for layer in range(layers)
        for kind in sublayer_kinds(stack, shape.encoder_layers)  # type: ignore[arg-type]
    ]
    stack, layer, sublayer = (list(part) for part in zip(*where, strict=True))
    return DepthProfile.from_dict({"label": case.name, "stack": stack, "layer": layer, "sublayer": sublayer, **kept})


def said(case: Case, row: dict[str, Any], when: str = "profile", with_update: bool = True) -> str:
    """``"PASS"``, ``"FAIL"``, ``"UNSURE"`` or ``"refused"``; ``when``: at the start, or ``"after three steps"``."""
    if "refused" in row:
        return "refused"
    kept = row if when == "profile" else row[when]
    update = kept["updates"].get("sgd matrices", 0.0) if with_update else None
    return profile_of(case, kept["profile"]).judge(float("nan") if with_update and update is None else update).word


def halves(rows: dict[str, dict[str, Any]]) -> tuple[list[str], list[str]]:
    """The names on which thresholds were set, and those that they are judged on, by a hash of the name."""
    chosen, judged = [], []
    for name, row in rows.items():
        if row.get("outcome"):
            (judged if sha256(name.encode()).digest()[0] % 2 else chosen).append(name)
    return chosen, judged


def bounds(names: list[str], rows: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Between which values each threshold may lie: the most that a model has that trains, and the least that one has
    that does not, of those that no other criterion speaks of."""
    by_name = {case.name: case for case in cases()}
    found: dict[str, tuple[list[float], list[float]]] = {
        what: ([], []) for what in ("similarity", "variance", "update")
    }
    for name in names:
        row = rows[name]
        if "profile" not in row or row["outcome"] == "partly" or by_name[name].batch is not None:
            continue
        profile = profile_of(by_name[name], row["profile"])
        assert profile.token_similarity is not None
        assert profile.input_share is not None
        assert profile.variance is not None
        top, share, variance = profile.token_similarity[-1], profile.input_share[-1], profile.variance[-1]
        update = row["updates"].get("sgd matrices")
        values = {"similarity": top, "variance": variance if share > STILL_INPUT else None, "update": update}
        trains = row["outcome"] == "trains"
        speaks = [what for what, value in values.items() if value is not None and value > THRESHOLDS[what]]
        for what, value in values.items():
            if value is not None and isfinite(value) and (trains or speaks == [what]):
                found[what][0 if trains else 1].append(value)
    return {what: (max(low, default=nan), min(high, default=nan)) for what, (low, high) in found.items()}


def confusion(names: list[str], rows: dict[str, dict[str, Any]]) -> dict[tuple[str, str], list[str]]:
    """The names by what training did and what was said."""
    by_name = {case.name: case for case in cases()}
    found: dict[tuple[str, str], list[str]] = {(kind, word): [] for kind in OUTCOMES for word in WORDS}
    for name in names:
        found[rows[name]["outcome"], said(by_name[name], rows[name])].append(name)
    return found


def tables(rows: dict[str, dict[str, Any]]) -> dict[str, str]:
    """The tables of docs/verdicts.md, by name."""
    chosen, judged = halves(rows)
    by_name = {case.name: case for case in cases()}
    head = "| training | half | " + " | ".join(WORDS) + " |\n| --- | --- |" + " --- |" * len(WORDS)
    lines, wrong = [head], ["| model | said | training | token map | previous token |\n| --- | --- | --- | --- | --- |"]
    for kind in OUTCOMES:
        for half, names in (("set on", chosen), ("judged on", judged)):
            found = confusion(names, rows)
            lines.append(f"| {kind} | {half} | " + " | ".join(str(len(found[kind, word])) for word in WORDS) + " |")
            errors = ("FAIL",) if kind == "trains" else ("PASS",)
            for name in (name for word in errors for name in found[kind, word]):
                shares = {task: f"{one['learned']:.0%}" for task, one in rows[name]["training"].items()}
                wrong.append(
                    f"| {name} ({half}) | {errors[0]} | {kind} | {shares.get('token_map', '')} | "
                    f"{shares.get('previous_token', '')} |"
                )
    updates = ["| training | SGD: least | median | most | Adam's size: least | median | most |\n|" + " --- |" * 7]
    for kind in OUTCOMES:
        cells = []
        for step in ("sgd matrices", "sign matrices"):
            found = [row.get("updates", {}).get(step) for row in rows.values() if row.get("outcome") == kind]
            values = sorted(value for value in found if value is not None)
            cells += [f"{value:.2g}" for value in (values[0], values[len(values) // 2], values[-1])]
        updates.append(f"| {kind} | " + " | ".join(cells) + " |")
    later = [
        f"| {name} | {said(by_name[name], row)} | {said(by_name[name], row, LATER)} | {row['outcome']} |"
        for name, row in rows.items()
        if LATER in row
    ]
    after = "\n".join(["| model | at the start | after three steps | training |\n| --- | --- | --- | --- |", *later])
    limits = ["| threshold | is | half | most that trains | least that does not |\n| --- | --- | --- | --- | --- |"]
    for half, names in (("set on", chosen), ("judged on", judged)):
        for what, (low, high) in bounds(names, rows).items():
            limits.append(
                f"| {what} | {THRESHOLDS[what]:g} | {half} | {low:.3g} | {'' if isnan(high) else f'{high:.3g}'} |"
            )
    return {
        "bounds": "\n".join(limits),
        "confusion": "\n".join(lines),
        "errors": "\n".join(wrong),
        "updates": "\n".join(updates),
        "later": after,
    }


def page(text: str, rows: dict[str, dict[str, Any]]) -> str:
    """The page with the tables that the record gives."""
    for name, table in tables(rows).items():
        begin, end = f"<!-- {name}, from the record -->", f"<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = f"{before}{begin}\n\n{table}\n\n{end}{rest.split(end)[1]}"
    return text


def perform(case: Case) -> dict[str, Any]:
    """A row of the record."""
    begin = time.perf_counter()
    row: dict[str, Any] = {"name": case.name, **measure(case)}
    if case.trained:
        row["training"] = {task: learned(case, task) for task in tasks_of(case)}
        row["outcome"] = outcome(row)
    return {
        **row,
        "seconds": round(time.perf_counter() - begin, 1),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": version("torch"),
            "deepnet-edu": version("deepnet-edu"),
        },
    }


def main() -> None:
    """Measure what is missing, or again what --only names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], help="names, rules, or beginnings of names")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=PARTS, help="one file of the record")
    parser.add_argument("--table", action="store_true", help="write the tables of docs/verdicts.md, and stop")
    arguments = parser.parse_args()
    chosen = [case for case in cases() if part(case) in arguments.part]
    if arguments.only:
        chosen = [c for c in chosen if any(c.name == o or c.name.startswith(f"{o}-") for o in arguments.only)]
    if arguments.table:
        text = PAGE.read_text(encoding="utf-8")
        write_atomic(PAGE, page(text, read()))
        return
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    rows = read()
    todo = [case for case in chosen if arguments.only or case.name not in rows]
    print(f"{len(rows)} models are measured, {len(todo)} to go", flush=True)
    for case in todo:
        row = perform(case)
        rows = {**read(), case.name: row}  # another part may be under way
        _keep(rows, case)
        shares = {task: one["learned"] for task, one in row.get("training", {}).items()}
        print(case.name, row.get("outcome"), shares, f"{row['seconds']} s", row.get("refused", ""), flush=True)


if __name__ == "__main__":
    sys.exit(main())

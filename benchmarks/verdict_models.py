"""The set of models behind the verdicts of ``judge``: every rule, what can be wrong with a model, and their tasks.

benchmarks/verdicts.py measures and trains them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu import Batch, ModelConfig, build_model
from deepnet_edu.data import PreviousToken, TokenMap
from deepnet_edu.model import Model
from deepnet_edu.residual import RESIDUALS, Residual
from deepnet_edu.residual.base import State

SHAPE = {"d_model": 32, "n_heads": 2, "d_ff": 128, "max_length": 16}
VOCABULARY, SEED = 16, 0
TASKS: dict[str, Any] = {
    "token_map": TokenMap(vocab_size=VOCABULARY, length=16, batch_size=8),
    "previous_token": PreviousToken(vocab_size=VOCABULARY, length=8, batch_size=16),
}

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
        model.use_path("plain")  # which runs whatever formula is there

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
    """LN(F): the residual connection was forgotten."""

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


# --- what they are trained on


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

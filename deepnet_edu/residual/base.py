"""The interface of a residual rule, and the registry of rules.

A stack keeps a *state*: a tuple of tensors, each with batch and token dimensions first. Each sub-layer owns one rule
object, and the stack runs

    state = first.start(x)
    for each sub-layer:   state = rule.write(state, branch(rule.read(state)))
    x = last.finish(state)

A new rule is one class in one file of this folder; the registry finds it, and with it tables, probes and tests.

Theory and planning ask a rule for its numbers and what it says of itself, and need no PyTorch for that. So a rule is a
plain class, and with the first that is made for a place of a stack all of them become modules. Files of rules take
``torch`` from ``later``, and what cannot be defined without it, modules and autograd functions, is in ``operations``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias, cast

from deepnet_edu.residual.later import arrive, torch
from deepnet_edu.residual.place import Architecture, Place
from deepnet_edu.residual.signal import Saved, Signal

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.nn import Module
else:

    class Module:
        """What a rule is until PyTorch has arrived."""


State: TypeAlias = "tuple[Tensor, ...]"
Role = Literal["query", "key", "value", "output", "ffn_in", "ffn_gate", "ffn_out", "embedding", "position", "head"]
#: Where a rule may put a module inside a branch, and the shape of what passes there:
#: query, key, value: projections, (B, T, n_heads, head_dim), before any rotation, of grouped keys and values
#: (B, T, n_kv_heads, head_dim); rotated: self-attention's query and key after it, both by one module;
#: mixed: attention's weighted values before the output projection, (B, T, d_model);
#: ffn_in: before the activation, (B, T, d_ff), or (B, T, 2·d_ff) with a gate; hidden: after it, (B, T, d_ff);
#: logits: (…, vocab_size), asked of the first place of the stack that the head reads.
BranchSlot = Literal["query", "key", "value", "rotated", "mixed", "ffn_in", "hidden", "logits"]

EVERYWHERE: tuple[Architecture, ...] = ("encoder", "decoder", "encoder_decoder")
ONE_STACK: tuple[Architecture, ...] = ("encoder", "decoder")

#: What a class says of itself, and the methods on which it depends.
_HOLDS_FOR = {
    "signal": ("start", "read", "write", "finish", "stream", "inside"),
    "saved": ("__init__", "start", "read", "write", "finish", "inside"),
    "norms": ("__init__", "inside"),
    "only_adds": ("write",),
}


class Residual(Module):
    """A residual rule at one place. Subclasses override the verbs that differ from the plain sum x + F(x).

    Class attributes: ``title`` (as written in text), ``formula`` (as computed), ``source`` (paper), ``init`` (what is
    special about its initial weights and constants, empty if nothing), ``sure`` (``"verified"``: formula, initial
    values, scope, learned parameters and schedule were read in the paper or its authors' code, where ``source`` says;
    ``"secondary"``: some of it was not), ``departs``, where it is not its authors' rule and why, empty if nowhere,
    ``architectures`` that the paper defines it for, ``elsewhere``, why not for the others, ``growing``, whether each
    layer adds a tensor to the state, so that none can use what was compiled for another, ``per_layer``, names of
    parameters that a layer has once, for all its sub-layers, and ``at_the_ends``, names of modules that a stack uses
    before its first layer or after its last one. ``constants`` holds the rule's numbers, exact, by name.

    And for planning: ``saved``, what autograd keeps of a layer; ``own_products``, whether the rule has products of
    matrices besides its branch's; ``norms``, how many norms it has at each place and how many at the end of a stack,
    if they are all that it learns. For explorers: ``on_skip``, the constant on the skip that may be moved by hand.

    So that rules can be compared, all draw Xavier-normal weights where they name no others, have biases in their
    projections, and mean by LN what the configuration's ``norm`` says: ``departs`` does not repeat that.
    """

    title: ClassVar[str] = "unnamed rule"
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    init: ClassVar[str] = ""
    sure: ClassVar[Literal["verified", "secondary"]] = "verified"
    departs: ClassVar[str] = ""
    architectures: ClassVar[tuple[Architecture, ...]] = EVERYWHERE
    elsewhere: ClassVar[str] = ""
    growing: ClassVar[bool] = False
    per_layer: ClassVar[tuple[str, ...]] = ()
    at_the_ends: ClassVar[tuple[str, ...]] = ("first_norm", "final_norm")
    saved: ClassVar[Saved] = Saved()
    own_products: ClassVar[bool] = False
    norms: ClassVar[tuple[int, int] | None] = None
    on_skip: ClassVar[str] = ""

    def __new__(cls, *_: Any, **__: Any) -> Self:
        """PyTorch arrives with the first rule that is made."""
        if not issubclass(cls, torch.nn.Module):
            _become_modules()
        return object.__new__(cls)

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__()
        self._stand_at(place, d_model)
        self._lowest: tuple[Residual, ...] = ()

    @classmethod
    def at(cls, place: Place, d_model: int = 1) -> Self:
        """The rule at a place, to read its numbers: it has no tensors, and makes none."""
        rule = object.__new__(cls)
        rule._stand_at(place, d_model)
        return rule

    def _stand_at(self, place: Place, d_model: int) -> None:
        self.check(place.architecture)
        self.place = place
        self.d_model = d_model
        self.constants = self.formula_constants()

    @classmethod
    def constants_at(cls, place: Place) -> dict[str, float]:
        """The rule's constants at a place, by name, from its paper's formula."""
        return {}

    def formula_constants(self) -> dict[str, float]:
        """:meth:`constants_at` here, or what the place says instead: what was not changed in the built model."""
        numbers = self.constants_at(self.place)
        return {name: float(self.place.override.get(name, value)) for name, value in numbers.items()}

    @classmethod
    def says(cls, what: str) -> bool:
        """Whether what a class says of itself, a name in ``_HOLDS_FOR``, is said of this one: of a subclass that has a
        method of its own on which that depends, it is not."""
        lineage = cls.__mro__
        speaker = next(i for i, parent in enumerate(lineage) if what in vars(parent))
        return not any(name in vars(parent) for parent in lineage[:speaker] for name in _HOLDS_FOR[what])

    def share(self, lowest: Residual) -> None:
        """Use, from now on, what is ``per_layer`` of ``lowest``, the rule of the same layer's lowest sub-layer."""
        for name in self.per_layer:
            delattr(self, name)
            self._lowest = (lowest,)  # in a tuple, and so no part of this module: a shared parameter has one name

    @property
    def lowest(self) -> Self:
        """The rule that holds what is ``per_layer``: of the layer's lowest sub-layer, or itself where it is alone."""
        return self._lowest[0] if self._lowest else self  # type: ignore[return-value]

    @classmethod
    def check(cls, architecture: Architecture) -> None:
        """Raise a ValueError with the reason where the paper does not define the rule for ``architecture``."""
        if architecture not in cls.architectures:
            raise ValueError(
                f"{cls.title} is not defined for architecture {architecture!r}: {cls.elsewhere} "
                f"Use it with {' or '.join(map(repr, cls.architectures))}, or another residual here."
            )

    @classmethod
    def facts(cls) -> dict[str, Any]:
        """What the class says of itself, for tables."""
        names = ("title", "formula", "source", "init", "sure", "departs", "architectures", "elsewhere")
        return {name: getattr(cls, name) for name in names}

    def start(self, x: Tensor) -> State:
        """The state that enters the stack. x: (B, T, d_model)."""
        return (x,)

    def enter(self, state: State) -> State:
        """The state as it is, or what ``read`` and ``write`` both need of it, computed once; they take either."""
        return state

    def read(self, state: State) -> Tensor:
        """What the branch F sees: (B, T, d_model)."""
        return state[0]

    def write(self, state: State, branch: Tensor) -> State:
        """The state after the branch returned ``branch`` = F(read(state)): (B, T, d_model)."""
        return (state[0] + branch,)

    def finish(self, state: State) -> Tensor:
        """What the stack returns: (B, T, d_model)."""
        return state[0]

    def stream(self, state: State) -> Tensor:
        """What a probe looks at: the signal that the stack would hand on if it ended here, (B, T, d_model)."""
        return state[0]

    def signal(self) -> Signal | None:
        """What the rule does, in the numbers that it has now (:meth:`current`), or None: :class:`Signal` cannot say it.

        :func:`deepnet_edu.theory.predict` believes it. The fast path takes it where the norms are ``norm`` and
        ``final_norm``, and compares: where the verbs do something else, the plain path runs. A subclass that changes a
        verb says it again.
        """
        return None

    def only_adds(self) -> bool:
        """Whether ``write`` only adds the branch, so that no backward pass reads it. Said of one ``write``: a subclass
        that changes it says it again."""
        return False

    def gain(self, role: Role) -> float:
        """The Xavier gain of a weight with this role in this sub-layer's branch."""
        return 1.0

    def ends_gain(self, role: Role) -> float:
        """A factor on the standard deviation of the model's embedding or head; asked of a stack's first place."""
        return 1.0

    def inside(self, slot: BranchSlot, width: int, heads: int) -> nn.Module | None:
        """A module of the rule's own inside the branch, or None. ``width``: of its last dimension, d_model for query,
        key and value, (B, T, heads, d_model / heads)."""
        return None

    def score_scale(self, head_dim: int) -> float:
        """The factor on qkᵀ in the softmax."""
        return float(head_dim**-0.5)

    def std(self, role: Role, fan_in: int, fan_out: int) -> float:
        """Standard deviation of a weight's initial normal distribution: Xavier's, gain·√(2/(fan_in + fan_out))."""
        return self.gain(role) * (2.0 / (fan_in + fan_out)) ** 0.5

    def draw(self, generator: torch.Generator) -> None:
        """Draw the rule's own parameters that start at random, from ``generator`` alone; most rules have none."""

    @classmethod
    def decays(cls, name: str, parameter: nn.Parameter) -> bool:
        """Whether weight decay is for a parameter: for matrices and embeddings, not for vectors, norms and numbers.

        Args:
            name: within the sub-layer, ``"branch.qkv.weight"`` or ``"residual.norm.weight"``; of embeddings and head,
                which are asked for too, within the model, ``"head.weight"``.
            parameter: itself.
        """
        return parameter.ndim > 1

    def learning_rate_factor(self, name: str) -> float:
        """The factor on the learning rate of a parameter of this sub-layer, by its name within it."""
        return 1.0

    def epsilon_factor(self, name: str) -> float:
        """The factor on AdamW's ε for a parameter of this sub-layer, by its name within it."""
        return 1.0

    def norm_layer(self, width: int | None = None) -> nn.Module:
        """What LN stands for here, over ``width`` features (d_model by default)."""
        width = self.d_model if width is None else width
        return torch.nn.LayerNorm(width) if self.place.norm == "layer" else torch.nn.RMSNorm(width, eps=1e-5)

    def constant(self, name: str) -> None:
        """Keep a constant as a buffer too, for use in the verbs.

        A Python number that differs between layers makes torch.compile build a graph for each of them; a buffer gives
        one graph for all. The buffer is not saved in a state_dict: it follows from the depth.
        """
        self.register_buffer(name, torch.tensor(self.constants[name]), persistent=False)

    def current(self, name: str) -> float:
        """A constant as the verbs use it now, changed or not; without a tensor of it, as it was made."""
        value = getattr(self, name, self.constants[name])
        return float(value)

    def set_constant(self, name: str, value: float) -> None:
        """Change a number of the rule, in place."""
        self.constants[name] = value
        self.get_buffer(name).fill_(value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Residual:
        """As nn.Module's, but a constant that changes its precision is rounded once, from its exact value; one that was
        changed by hand is kept."""
        exact = [name for name in self.constants.keys() & self._buffers.keys() if self._is_exact(name)]
        super()._apply(fn, recurse)
        for name in exact:
            self.get_buffer(name).fill_(self.constants[name])
        return self

    def _is_exact(self, name: str) -> bool:
        """Whether a buffer is its constant, but for its precision; one that holds no number yet is to be."""
        buffer = self.get_buffer(name)
        return type(buffer) is not torch.Tensor or buffer.is_meta or bool((buffer == self.constants[name]).all())


def _become_modules() -> None:
    """Rules compute from now on: their files have PyTorch, and they are modules."""
    for name in [name for name in sys.modules if name.startswith(f"{__package__}.")]:
        arrive(vars(sys.modules[name]))
    Residual.__bases__ = (torch.nn.Module,)


def itself(parameter: Tensor) -> Tensor:
    """The parameter, not its gradient or anything else of its shape."""
    return parameter


def modules_inside(
    rule: Residual | None, slots: tuple[BranchSlot, ...], width: int, heads: int = 1
) -> nn.ModuleDict | None:
    """The rule's modules for these slots of a branch; None, which costs nothing, where it has none."""
    made = {} if rule is None else {slot: rule.inside(slot, width, heads) for slot in slots}
    present: dict[str, nn.Module] = {slot: module for slot, module in made.items() if module is not None}
    return torch.nn.ModuleDict(present) if present else None


def through(modules: nn.ModuleDict | None, slot: BranchSlot, x: Tensor) -> Tensor:
    """x through the module at this slot, or as it is."""
    return x if modules is None or slot not in modules else cast("Tensor", modules[slot](x))


class Calibrated(Residual):
    """A rule with constants that follow from the data: measured in one forward pass, from the bottom up."""

    def calibrate(self, state: State, branch: Tensor, below: float | None) -> float:
        """Set the constants of this place from what arrives; called before ``write``.

        Args:
            state: as ``write`` gets it.
            branch: F(read(state)).
            below: what the previous place of the stack returned, None at the first.

        Returns:
            What the next place needs to know.
        """
        raise NotImplementedError


class Scheduled(Residual):
    """A rule with constants that follow from the step of training."""

    def at_step(self, step: int) -> None:
        """Set the constants for training step ``step``, from 0. Outside of training they stay as last set."""
        raise NotImplementedError


class Projected(Residual):
    """A rule that puts weights back on a manifold at initialisation and after every update."""

    def project(self, weights: Mapping[Role, Tensor]) -> None:
        """Change ``weights`` in place. Called for a sub-layer's own branch; at a stack's first place also for the
        embeddings, at its last for the head. Query, key, value, ffn_in, ffn_gate: (…, d_model); output, ffn_out:
        (d_model, …); embedding, head: (vocab_size, d_model)."""
        raise NotImplementedError

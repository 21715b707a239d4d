"""The interface of a residual rule, the place that a rule is made for, and the registry of rules.

A stack keeps a *state*: a tuple of tensors, each with batch and token dimensions first. Each sub-layer owns one rule
object, and the stack runs

    state = first.start(x)
    for each sub-layer:   state = rule.write(state, branch(rule.read(state)))
    x = last.finish(state)

A new rule is one class in one file of this folder; the registry finds it, and with it tables, probes and tests.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from deepnet_edu.messages import unknown

State = tuple[Tensor, ...]
StackName = Literal["encoder", "decoder"]
Role = Literal["query", "key", "value", "output", "ffn_in", "ffn_out", "embedding", "position", "head"]


@dataclass(frozen=True)
class Place:
    """Where in a model a rule sits.

    Attributes:
        stack: ``"encoder"`` or ``"decoder"``.
        layer: index of the layer, from 0.
        sublayer: ``"self_attention"``, ``"cross_attention"`` or ``"ffn"``.
        index: index of the sub-layer within its stack, from 0.
        count: number of sub-layers in the stack.
        encoder_layers: N, depth of the model's encoder, 0 if it has none.
        decoder_layers: M, depth of the model's decoder, 0 if it has none.
    """

    stack: StackName
    layer: int
    sublayer: str
    index: int
    count: int
    encoder_layers: int
    decoder_layers: int

    @property
    def is_last(self) -> bool:
        """Whether the stack ends here: a rule with a final norm makes it at this place only."""
        return self.index == self.count - 1


class Residual(nn.Module):
    """A residual rule at one place. Subclasses override the verbs that differ from the plain sum x + F(x).

    Class attributes: ``title`` (as written in text), ``formula`` (as computed), ``source`` (paper).
    ``constants`` holds the rule's numbers, exact, by the name of their buffer.
    """

    title: ClassVar[str]
    formula: ClassVar[str]
    source: ClassVar[str]

    def __init__(self, place: Place, d_model: int) -> None:
        super().__init__()
        self.place = place
        self.d_model = d_model
        self.constants: dict[str, float] = {}

    def start(self, x: Tensor) -> State:
        """The state that enters the stack. x: (B, T, d_model)."""
        return (x,)

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

    def gain(self, role: Role) -> float:
        """The Xavier gain of a weight with this role in this sub-layer's branch."""
        return 1.0

    def constant(self, name: str, value: float) -> None:
        """Keep a number of the rule as a buffer.

        A Python number that differs between layers makes torch.compile build a graph for each of them; a buffer gives
        one graph for all. The buffer is not saved in a state_dict: it follows from the depth.
        """
        self.constants[name] = value
        self.register_buffer(name, torch.tensor(value), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Residual":
        """As nn.Module's, but a constant that changes its precision is rounded once, from its exact value."""
        super()._apply(fn, recurse)
        for name, value in self.constants.items():
            self.get_buffer(name).fill_(value)
        return self


class Registry(Mapping[str, type[Residual]]):
    """The rules by name; an unknown name raises a KeyError that names the nearest one."""

    def __init__(self) -> None:
        self._rules: dict[str, type[Residual]] = {}

    def register(self, name: str) -> Callable[[type[Residual]], type[Residual]]:
        """Class decorator that adds a rule under ``name``. A name can be taken once."""

        def add(rule: type[Residual]) -> type[Residual]:
            if name in self._rules:
                raise ValueError(
                    f"The residual name {name!r} is taken by {self._rules[name].__name__}: choose another."
                )
            self._rules[name] = rule
            return rule

        return add

    def __getitem__(self, name: str) -> type[Residual]:
        if name not in self._rules:
            raise KeyError(unknown("residual", name, sorted(self._rules)))
        return self._rules[name]

    def __contains__(self, name: object) -> bool:
        return name in self._rules

    def __iter__(self) -> Iterator[str]:
        return iter(self._rules)

    def __len__(self) -> int:
        return len(self._rules)


RESIDUALS = Registry()

"""What a rule does to the sizes of a signal, as far as one formula can say it, and what autograd keeps of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Signal:
    """What a rule does at its place to the sizes of a signal at initialisation, as far as one formula can say it:

        x ← LN(skip·x + branch·LN(F(read·LN(x)))), each LN only where its flag is set.

    Attributes:
        skip: the factor on x.
        branch: the factor on F.
        read: the factor on what F sees.
        norm_read: LN before the branch.
        norm_value: LN of attention's values.
        norm_inside: LN before the branch's last matrix.
        norm_branch: LN behind the branch.
        norm_sum: LN around the sum.
        norm_finish: LN at the end of the stack.
        relative: the factor on F is in units of x's own root mean square.
    """

    skip: float = 1.0
    branch: float = 1.0
    read: float = 1.0
    norm_read: bool = False
    norm_value: bool = False
    norm_inside: bool = False
    norm_branch: bool = False
    norm_sum: bool = False
    norm_finish: bool = False
    relative: bool = False


@dataclass(frozen=True)
class Saved:
    """What autograd keeps of one layer by the plain path: d·d_model + ff·d_ff + more numbers a token, and attention's
    one a head; of a cross-attention d_cross·d_model + more_cross, and 2·d_model a token of the memory. A test counts
    them.

    Attributes:
        by_head: what a head of self-attention keeps besides, for norms of its own.
        weights: further numbers for each layer below, which it weighs.
        state: d_models between layers, kept once however often they are read.
        growth: by how much each layer enlarges the state.
        blocks: the most that the state holds.
        cast: under autocast, further d_models and numbers a token, of two bytes each.
    """

    d: int = 8
    ff: int = 2
    more: int = 4
    d_cross: int = 4
    more_cross: int = 2
    by_head: int = 0
    weights: int = 0
    growth: int = 0
    state: int = 1
    blocks: int = 0
    cast: tuple[int, int] = (0, 0)

    def below(self, i: int, layers: int) -> int:
        """Layers or blocks of them that layer i of a stack weighs."""
        return i * self.blocks // layers if self.blocks and layers > self.blocks else i

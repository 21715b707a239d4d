"""What a rule does to the sizes of a signal, as far as one formula can say it."""

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

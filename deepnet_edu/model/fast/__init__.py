"""A whole stack as one autograd node, its backward pass written by hand: the same numbers in less time and memory.

At a thousand layers the plain path spends as much time around the matrix products as in them: autograd keeps a node for
every operation, gradients are made and then added to another tensor, and memory is allocated 20,000 times a step.
Here every tensor has its place, taken once and used again, gradients are added where they belong by the product that
makes them, and nothing is kept but what the backward pass reads.

A stack is cut at its sums u. With N_i the norm in front of branch F_i, both families of rules are

    s_i = N_i(u_{i-1})      u_i = skip·(s_i or u_{i-1}) + scale·F_i(s_i)      F_i(s) = W_last·inner_i(W_first·s)

In Post-LN and DeepNorm the skip starts *after* the norm, which belongs to the sub-layer below (N_1 is nothing); in
Pre-LN it starts *before*. The stack returns the norm of the last u.

The layer that lessons show is :class:`deepnet_edu.model.layer.TransformerLayer`, and what it computes is what counts.
So a stack is read (``reading``), what was read is compared with the plain path on a few layers (``proof``), which stand
for all only where their code cannot tell them apart (``code``), and before it is used again it is looked through for
changes (``snapshot``). What is unknown, different or beyond comparison goes by the plain path, and ``taken`` says why.
"""

from typing import TYPE_CHECKING

from deepnet_edu.lazy import lazily
from deepnet_edu.model.fast.known import HEAD_DIMS, LONGEST, MULTIPLE, knows

if TYPE_CHECKING:
    from deepnet_edu.model.fast.node import Observer, StepBuffers
    from deepnet_edu.model.fast.path import Readings, run

__all__ = ["HEAD_DIMS", "LONGEST", "MULTIPLE", "Observer", "Readings", "StepBuffers", "knows", "run"]

#: What needs PyTorch is loaded when it is first used: planning asks for the others.
__getattr__ = lazily(__name__, {"Observer": "node", "StepBuffers": "node", "Readings": "path", "run": "path"})

"""The norm and what is added under it in one kernel: LN(αx + f), and Pre-LN's sum with the norm that reads it.

A sub-layer's branch is products of matrices, which are fast; what joins it to the stream is a pass over memory for
every operation: αx, + f, statistics, the norm, a cast, and as many backward. Here it is one kernel forward and one
backward, with the bias of the branch's last matrix folded in, so that its gradient needs no pass either. It needs
Triton and a GPU; elsewhere the plain layer runs, and always the plain layer is what counts: a rule offers itself by its
``signal()``, and before the kernel is used it is compared with that layer (:mod:`.plan`).

Why our own: Liger has x + f under RMSNorm, and a LayerNorm with no sum before it; Quack has both norms with a sum;
neither has an α or the bias, nor has Apex a sum. FlashAttention's kernel has a factor for each row, but writes the sum
to memory for the backward pass, which one read of x and f gives again, and needs CUDA's compiler to be installed.
"""

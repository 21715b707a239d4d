"""Masked language modelling: some tokens are hidden, and the model says what they were."""

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from deepnet_edu.data.packing import PackedText
from deepnet_edu.data.text import PythonDocs
from deepnet_edu.fields import Share, checked
from deepnet_edu.model import IGNORED, Batch
from deepnet_edu.model.attention import check_mask

#: Of all tokens, those that are answers; of these, those that become the mask token, and those that become any token.
SHARE, HIDDEN, REPLACED = 0.15, 0.8, 0.1


@checked()
def mask_tokens(
    tokens: Tensor,
    mask: int,
    ordinary: range,
    generator: torch.Generator,
    *,
    padding: Tensor | None = None,
    share: Share = SHARE,
) -> tuple[Tensor, Tensor]:
    """Choose 15% of each sequence as answers, and hide them: 80% become the mask token, 10% any token, 10% stay.

    Of a sequence with n ordinary tokens, max(1, round(0.15·n)) are chosen, each as likely as any other; what becomes of
    one does not depend on the others.

    Args:
        tokens: (B, T) int64.
        mask: the mask token.
        ordinary: those that stand for text. Others (start, end, tags) are never chosen, and replace none.
        generator: of all draws; the same one gives other masks at each call.
        padding: (B, T) bool, True where a token is padding, which is never chosen.
        share: of the tokens that are chosen, 0.15 in BERT.

    Returns:
        Inputs and targets, (B, T) each; targets are -100 where the token was not chosen.

    Raises:
        ValueError: share is not from 0 to 1, tokens are not (B, T), padding is of another shape, or no token is
            ordinary.

    Source: arXiv 1810.04805, Section 3.1 and Appendix A.1; one token at least, and whole numbers of them, as in the
    authors' ``create_pretraining_data.py``.
    """
    if tokens.ndim != 2:
        raise ValueError(f"Tokens of shape {tuple(tokens.shape)}: expected (B, T); for one sequence, tokens[None].")
    if not len(ordinary):
        raise ValueError(f"ordinary={ordinary!r}: expected the tokens that stand for text, for example range(3, 300).")
    check_mask("padding", padding, tuple(tokens.shape))
    free = (tokens >= ordinary.start) & (tokens < ordinary.stop)
    if padding is not None:
        free &= ~padding
    # Those with the smallest draws of a sequence, as many as it has to give.
    draws = torch.rand(tokens.shape, generator=generator, dtype=torch.float64).masked_fill(~free, 2.0)
    asked = (share * free.sum(1, keepdim=True)).round().clamp_min(1)
    chosen = (draws.argsort(1).argsort(1) < asked) & free
    fate = torch.rand(tokens.shape, generator=generator, dtype=torch.float64)
    any_token = torch.randint(ordinary.start, ordinary.stop, tokens.shape, generator=generator)
    inputs = tokens.masked_fill(chosen & (fate < HIDDEN), mask)
    inputs = torch.where(chosen & (fate >= HIDDEN) & (fate < HIDDEN + REPLACED), any_token, inputs)
    return inputs, tokens.masked_fill(~chosen, IGNORED)


class MaskedText:
    """Text for an encoder: what it reads has some tokens hidden, each time others, and these are its answers.

    The mask token is one more than the text has. Which tokens are hidden comes from the generator that each batch is
    asked for with, so that a text has other masks in each epoch, and a run that is resumed the same ones.

    Args:
        text: what the tokens are of, with its place in it.
        share: of the tokens that are answers.

    Raises:
        ValueError: share is not from 0 to 1.

    Source: arXiv 1810.04805, Section 3.1; other masks in each epoch as in arXiv 1907.11692, Section 4.1.
    """

    @checked()
    def __init__(self, text: PackedText | PythonDocs, *, share: Share = SHARE) -> None:
        self.text, self.share = text, share
        #: The mask token, and those that stand for text.
        self.mask = text.vocab_size
        self.ordinary = text.tokenizer.text_tokens if isinstance(text, PackedText) else range(text.vocab_size)
        if isinstance(text, PackedText):
            self.tokenizer = text.tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of tokens that a model of this text must know, the mask token among them."""
        return self.text.vocab_size + 1

    @property
    def identity(self) -> dict[str, Any]:
        """What is read, as plain JSON: a checkpoint resumes with the same only."""
        return {**self.text.identity, "masked": self.share}

    @cached_property
    def chance(self) -> float:
        """Loss of the best guess that looks at no other token, in nats: the entropy of an answer given its own input.

        With p the shares of the ordinary tokens, V of them, an answer t is hidden with 0.8·p_t, and shows v with
        0.1·p_t·(δ_tv + 1/V).
        """
        count = self.text.train[(self.text.train >= self.ordinary.start) & (self.text.train < self.ordinary.stop)]
        V = len(self.ordinary)
        p = (count.long() - self.ordinary.start).bincount(minlength=V).double() / len(count)
        kept, any_token = (1 - HIDDEN - REPLACED) * p, REPLACED * p / V
        entropy = torch.special.entr
        both = entropy(HIDDEN * p).sum() + entropy(kept + any_token).sum() + (V - 1) * entropy(any_token).sum()
        shown = entropy(torch.tensor(HIDDEN, dtype=p.dtype)) + entropy(kept + REPLACED / V).sum()
        return float(both - shown)

    def batch(self, generator: torch.Generator) -> Batch:
        """The text's next windows on the CPU, (B, T), with tokens hidden by draws from the generator."""
        return self._hidden(self.text.batch(generator), generator)

    def validation_batch(self, generator: torch.Generator) -> Batch:
        """Random windows of the held-out part on the CPU, (B, T), likewise."""
        return self._hidden(self.text.validation_batch(generator), generator)

    def _hidden(self, batch: Batch, generator: torch.Generator) -> Batch:
        return Batch(*mask_tokens(batch.inputs, self.mask, self.ordinary, generator, share=self.share))

    def state(self) -> dict[str, Any]:
        """The place in the text, as plain JSON; empty for a text that keeps none."""
        return self.text.state() if isinstance(self.text, PackedText) else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state` was asked.

        Raises:
            ValueError: as :meth:`PackedText.load_state`.
        """
        if isinstance(self.text, PackedText):
            self.text.load_state(state)

"""Sentences in, sentences out: a trained translator with its tokenizer, placeholders protected."""

from collections.abc import Sequence

import torch
from torch import Tensor

from deepnet_edu.data.bpe import BytePairs
from deepnet_edu.data.placeholders import protect, restore
from deepnet_edu.data.translation import Pair
from deepnet_edu.fields import Count, checked
from deepnet_edu.messages import shown
from deepnet_edu.model import Model, Translator
from deepnet_edu.model.compiled import unwrapped
from deepnet_edu.model.generation import beam_search, greedy


@checked(model=unwrapped)
def translate(
    model: Model,
    tokenizer: BytePairs,
    sentences: Sequence[str],
    language: str | Sequence[str | None] | None = None,
    *,
    beams: Count = 1,
    length_penalty: float = 1.0,
    longest: Count | None = None,
    batch_size: Count = 64,
) -> list[str]:
    """Translations, by the most probable token or a beam, with the placeholders of each sentence put back.

    Args:
        model: a translator, trained on such tokens.
        tokenizer: that it was trained with.
        sentences: none of them empty.
        language: of all outputs, or of each; None where the model knows one only.
        beams: hypotheses of a sentence; 1 for the most probable token.
        length_penalty: of a beam, see :func:`~deepnet_edu.model.generation.beam_search`.
        longest: most tokens of an output; None for the model's positions, max_length.
        batch_size: sentences at a time.

    Raises:
        ValueError: the model is not a translator or has another vocabulary, a language has no tag (the nearest is
            named), a sentence is empty or has more tokens than the model has positions.
    """
    if not isinstance(model, Translator):
        raise ValueError(f"A model for task={model.config.task!r} cannot translate: build one with task='translation'.")
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ValueError(f"The tokenizer has {tokenizer.vocab_size} tokens, the model {model.config.vocab_size}.")
    if isinstance(sentences, str):
        raise ValueError("sentences: expected a list of strings, for example [text], not one string.")
    languages = [language] * len(sentences) if language is None or isinstance(language, str) else language
    if len(languages) != len(sentences):
        raise ValueError(f"{len(languages)} languages for {len(sentences)} sentences: expected one for each, or one.")
    sources = [_tokens(model, tokenizer, sentence, tag) for sentence, tag in zip(sentences, languages, strict=True)]
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))  # those of a batch are of like length
    answers = [""] * len(sources)
    how = {
        "max_new_tokens": longest or model.config.max_length, "start": tokenizer.start, "end": tokenizer.end
    }  # fmt: skip
    for first in range(0, len(order), batch_size):
        some = order[first : first + batch_size]
        prompt, padding = _padded([sources[i] for i in some], tokenizer.pad, model.head.weight.device)
        if beams == 1:
            written = greedy(model, prompt, padding=padding, **how)
        else:
            written, _ = beam_search(model, prompt, padding=padding, beams=beams, length_penalty=length_penalty, **how)
        for i, row in zip(some, written.tolist(), strict=True):
            answers[i] = restore(tokenizer.decode(row), sentences[i])
    return answers


def _tokens(model: Translator, tokenizer: BytePairs, sentence: str, language: str | None) -> list[int]:
    if not sentence.strip():
        raise ValueError("A sentence is empty: there is nothing to translate; leave it out.")
    tag = [] if language is None else [tokenizer.tag(language)]
    tokens = [*tag, *tokenizer.encode(protect(Pair(sentence, "")).source), tokenizer.end]
    if model.config.position == "learned" and len(tokens) > model.config.max_length:
        raise ValueError(
            f"{shown(sentence)} has {len(tokens)} tokens, and the model {model.config.max_length} positions: "
            "give it in shorter pieces, or build the model with a larger max_length."
        )
    return tokens


def _padded(rows: list[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
    longest = max(map(len, rows))
    padding = torch.tensor([[i >= len(row) for i in range(longest)] for row in rows], device=device)
    tokens = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)
    return tokens, padding if padding.any() else None

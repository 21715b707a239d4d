"""Text from a trained model: greedy, sampled, or the best of several beams.

Each token is read once, thanks to the cache. A causal language model continues a prompt, (B, T) tokens; shorter prompts
of a batch are padded on the left. A translator reads a source, (B, S) tokens padded on either side, and writes from a
``start`` token on.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu.fields import checked
from deepnet_edu.model import LanguageModel, Model, Translator, broken_weights, evaluating
from deepnet_edu.model.attention import Cache, check_mask
from deepnet_edu.model.compiled import unwrapped
from deepnet_edu.model.embedding import as_tokens

#: Logits are divided by at least this much: less would overflow, and draws the same.
COLDEST = 1e-30


class _Reader:
    """A model that has read a prompt, or a source, and takes new tokens one by one."""

    def __init__(self, model: Model, prompt: Tensor, padding: Tensor | None, start: int | None) -> None:
        self.model, self.cache, self.padding = model, Cache(), padding
        if isinstance(model, Translator):
            assert start is not None
            self.memory = model.encode(prompt, padding)
            self.logits = self.read(torch.full_like(prompt[:, :1], start))
        else:
            self.logits = model(prompt, padding, self.cache)[:, -1]

    def read(self, tokens: Tensor) -> Tensor:
        """(B, 1) new tokens → logits of what follows, (B, vocab_size)."""
        if isinstance(self.model, Translator):
            logits = self.model.decode(tokens, self.memory, memory_padding=self.padding, cache=self.cache)
        else:
            if self.padding is not None:
                self.padding = F.pad(self.padding, (0, 1), value=False)
            logits = self.model(tokens, self.padding, self.cache)
        return logits[:, -1]

    def select(self, rows: Tensor) -> None:
        """Continue with these rows of the batch."""
        self.cache.select(rows)
        if self.padding is not None:
            self.padding = self.padding[rows]
        if isinstance(self.model, Translator):
            self.memory = self.memory[rows]


@checked(model=unwrapped)
def greedy(
    model: Model,
    prompt: Tensor,
    max_new_tokens: int,
    *,
    end: int | None = None,
    start: int | None = None,
    padding: Tensor | None = None,
) -> Tensor:
    """The most probable token, again and again.

    Args:
        model: a causal language model or a translator, trained or not; wrappers such as torch.compile's are taken off.
        prompt: (B, T) whole numbers, the prompt, or a translator's source.
        max_new_tokens: the most that is written.
        end: the token after which a sequence is complete; the rest of its row is filled with it.
        start: the token from which a translator writes.
        padding: (B, T) bool, True where ``prompt`` is padding.

    Returns:
        (B, n) new tokens, n ≤ max_new_tokens: without the prompt or ``start``.

    Raises:
        ValueError: one sentence that says what was given and what to type; or the model answers with numbers that are
            not finite.
    """
    prompt = _check(model, prompt, max_new_tokens, end, start, padding)
    return _write(model, prompt, max_new_tokens, end, start, padding, lambda logits: logits.argmax(-1))


@checked(model=unwrapped)
def sample(
    model: Model,
    prompt: Tensor,
    max_new_tokens: int,
    *,
    generator: torch.Generator,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    end: int | None = None,
    start: int | None = None,
    padding: Tensor | None = None,
) -> Tensor:
    """A token drawn from what the model believes, again and again.

    Args:
        model, prompt, max_new_tokens, end, start, padding: as for :func:`greedy`.
        generator: the only source of chance, on the model's device.
        temperature: logits are divided by it; below 1 the likely gets likelier.
        top_k: only this many of the most probable tokens; None for all.
        top_p: of these, only the smallest set whose probability reaches ``top_p`` (arXiv 1904.09751), never none.

    Returns:
        (B, n) new tokens.

    Raises:
        ValueError: as :func:`greedy`, or a temperature, top_k or top_p outside its range.
    """
    prompt = _check(model, prompt, max_new_tokens, end, start, padding)
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature!r}: expected a positive number; for none at all, greedy(…).")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k={top_k!r}: expected 1 or more, or None for all tokens.")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p={top_p!r}: expected more than 0 and at most 1.")
    if generator.device.type != prompt.device.type:
        raise ValueError(
            f"The generator is on {generator.device}, the model on {prompt.device}: "
            f"use torch.Generator('{prompt.device}')."
        )

    def draw(logits: Tensor) -> Tensor:
        # The largest is 0 then, so that no temperature makes it infinite.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        logits = (logits - logits.amax(-1, keepdim=True)) / max(float(temperature), COLDEST)
        probabilities = filtered(logits, top_k, top_p).softmax(-1)
        return torch.multinomial(probabilities, 1, generator=generator).squeeze(-1)

    return _write(model, prompt, max_new_tokens, end, start, padding, draw)


def filtered(logits: Tensor, top_k: int | None, top_p: float) -> Tensor:
    """-∞ where a token is not among the ``top_k`` most probable, or not in the smallest set of probability ``top_p``.

    Args:
        logits: (B, vocab_size).
        top_k: None for all.
        top_p: of what top_k leaves.
    """
    if top_k is not None and top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if top_p < 1:
        ordered, index = logits.sort(descending=True, stable=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)
        beyond = before >= top_p
        beyond[..., 0] = False  # however small top_p is
        logits = logits.masked_fill(beyond.scatter(-1, index, beyond), -torch.inf)
    return logits


@torch.no_grad()
def _write(
    model: Model,
    prompt: Tensor,
    max_new_tokens: int,
    end: int | None,
    start: int | None,
    padding: Tensor | None,
    choose: Callable[[Tensor], Tensor],
) -> Tensor:
    """New tokens, each chosen from the logits after the last one."""
    with evaluating(model):
        reader = _Reader(model, prompt, padding, start)
        written: list[Tensor] = []
        done = torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
        logits = reader.logits
        while True:
            _check_logits(model, logits)
            token = choose(logits)
            if end is not None:
                token = token.masked_fill(done, end)
                done = done | (token == end)
            written.append(token)
            if len(written) == max_new_tokens or done.all():
                return torch.stack(written, dim=1)
            logits = reader.read(token[:, None])


@checked(model=unwrapped)
@torch.no_grad()
def beam_search(
    model: Model,
    prompt: Tensor,
    max_new_tokens: int,
    *,
    beams: int = 4,
    length_penalty: float = 1.0,
    end: int | None = None,
    start: int | None = None,
    padding: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The sequence of highest score among those that ``beams`` parallel hypotheses find.

    The score is log P(sequence) / length^length_penalty, the length counted with ``end``: 0 prefers short sequences, 1
    compares the mean log-probability of a token. (arXiv 1609.08144, Equation 14, has ((5 + length)/6)^α instead.)
    The search of a sentence ends when no hypothesis can beat its best finished one any more.

    Args:
        model, prompt, max_new_tokens, end, start, padding: as for :func:`greedy`.
        beams: hypotheses per sentence; with 1 and no ``end`` the result is greedy's.
        length_penalty: 0 to 10.

    Returns:
        (B, n) new tokens, filled with ``end``; (B,) scores.

    Raises:
        ValueError: as :func:`greedy`, or beams or length_penalty outside its range.
    """
    prompt = _check(model, prompt, max_new_tokens, end, start, padding)
    if not 1 <= beams <= 10_000:
        raise ValueError(f"beams={beams!r}: expected a whole number from 1 to 10,000.")
    if not 0 <= length_penalty <= 10:
        raise ValueError(f"length_penalty={length_penalty!r}: expected 0 or more, at most 10.")
    with evaluating(model):
        return _search(_Reader(model, prompt, padding, start), max_new_tokens, beams, length_penalty, end)


def _search(reader: _Reader, longest: int, K: int, power: float, end: int | None) -> tuple[Tensor, Tensor]:
    B, V = reader.logits.shape
    device = reader.logits.device
    sentence = torch.arange(B, device=device)[:, None]  # (B, 1)
    reader.select(sentence.expand(B, K).flatten())
    logits = reader.logits.repeat_interleave(K, dim=0)
    total = torch.full((B, K), -torch.inf, dtype=logits.dtype, device=device)
    total[:, 0] = 0.0  # all beams of a sentence are equal at first: only one may speak
    written = torch.empty(B, K, 0, dtype=torch.long, device=device)
    filler = 0 if end is None else end
    best = torch.empty(B, 0, dtype=torch.long, device=device)  # as long as the longest that was written so far
    best_score = torch.full((B,), -torch.inf, dtype=logits.dtype, device=device)

    def keep(score: Tensor, tokens: Tensor) -> None:
        """The best of finished hypotheses, (B, n) and (B, n, length), if it beats what is known."""
        nonlocal best
        best = F.pad(best, (0, tokens.shape[-1] - best.shape[1]), value=filler)
        top, which = score.max(dim=1)
        better = top > best_score
        best_score[better] = top[better]
        best[better] = tokens[sentence[:, 0], which][better]

    for length in range(1, longest + 1):
        _check_logits(reader.model, logits)
        candidates = (total[..., None] + logits.log_softmax(-1).view(B, K, V)).flatten(1)  # (B, K·V)
        # Each beam has one way to end, so twice as many candidates leave K to continue.
        score, index = candidates.topk(min(2 * K, K * V))
        parent, token = index // V, index % V
        tokens = torch.cat([written[sentence, parent], token[..., None]], dim=-1)  # (B, 2K, length)
        ends = torch.zeros_like(token, dtype=torch.bool) if end is None else token == end
        if length == longest:
            keep(score / length**power, tokens)
            break
        keep((score / length**power).masked_fill(~ends, -torch.inf), tokens)
        # stable: among equals the more probable stays first
        order = ends.sort(dim=1, stable=True).indices[:, :K]
        total, parent = score.gather(1, order), parent.gather(1, order)
        total = total.masked_fill(ends.gather(1, order), -torch.inf)
        written = tokens[sentence, order]
        if len(written[0]) < K:  # a vocabulary of two and one beam: pad with hypotheses that cannot win
            missing = K - len(written[0])
            total = F.pad(total, (0, missing), value=-torch.inf)
            parent = F.pad(parent, (0, missing))
            written = F.pad(written, (0, 0, 0, missing))
        # A log-probability only falls; what it is divided by is largest at the end.
        if (best_score >= total.max(dim=1).values / longest**power).all():
            break
        reader.select((sentence * K + parent).flatten())
        logits = reader.read(written[..., -1].flatten()[:, None])
    used = length if end is None else max(1, int(((best != end).sum(1) + 1).clamp_max(length).max()))
    return best[:, :used], best_score


def _check_logits(model: Model, logits: Tensor) -> None:
    """Refuse to choose where no token is the most probable: a NaN is larger than all numbers to argmax."""
    if not logits.amax(-1).isfinite().all():
        name = broken_weights(model)
        why = f"the weights of {name} are not" if name else "its weights are, but what it computes from them overflows"
        raise ValueError(
            f"The model's outputs are not finite numbers; {why}. It cannot write: load an earlier checkpoint, "
            "or build it again."
        )


def _check(
    model: Model, prompt: Tensor, max_new_tokens: int, end: int | None, start: int | None, padding: Tensor | None
) -> Tensor:
    """The prompt as int64; what cannot be written is refused before any work."""
    writes = isinstance(model, Translator) or (isinstance(model, LanguageModel) and model.name == "decoder")
    if not writes:
        raise ValueError(
            f"A model for task={model.config.task!r} cannot write: build one with task='lm' or 'translation'."
        )
    if prompt.ndim != 2 or 0 in prompt.shape:
        raise ValueError(
            f"prompt of shape {tuple(prompt.shape)}: expected (B, T) with at least one token; "
            "for one sequence, prompt[None]."
        )
    prompt = as_tokens("prompt", prompt)
    device = model.head.weight.device
    if device.type == "meta":
        raise ValueError("The model is on the device meta, where weights have no numbers: build it on another.")
    if prompt.device != device:
        raise ValueError(f"The prompt is on {prompt.device}, the model on {device}: use prompt.to('{device}').")
    if not 1 <= max_new_tokens < 2**31:
        raise ValueError(f"max_new_tokens={max_new_tokens!r}: expected a whole number, 1 or more and less than 2**31.")
    size = model.config.vocab_size
    for name, token in (("end", end), ("start", start)):
        if token is not None and not 0 <= token < size:
            raise ValueError(f"{name}={token!r} is outside the vocabulary: expected 0 to {size - 1}.")
    translates = isinstance(model, Translator)
    if translates != (start is not None):
        what = "needs a start token to write from" if translates else "continues its prompt: leave out start"
        raise ValueError(f"start={start!r}: a model for task={model.config.task!r} {what}.")
    check_mask("padding", padding, tuple(prompt.shape))
    if padding is not None and padding.device != device:
        raise ValueError(f"The padding is on {padding.device}, the model on {device}: use padding.to('{device}').")
    if padding is not None and not translates and padding[:, -1].any():
        raise ValueError(
            "A prompt is padded on the right, where it is continued: pad it on the left. (padding is True where a "
            "token is padding; from Hugging Face's attention_mask, attention_mask == 0.)"
        )
    # The last token that is written is not read again.
    length = max_new_tokens + (0 if translates else prompt.shape[1] - 1)
    if model.config.position == "learned" and length > model.config.max_length:
        raise ValueError(
            f"Prompt and new tokens need {length} positions, the model has {model.config.max_length}: "
            f"write less, or build the model with max_length={length}."
        )
    return prompt

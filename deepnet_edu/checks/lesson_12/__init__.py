"""Lesson 12, a language model: what text costs, and depth at equal cost. And ``windows``, ``cached``, ``arms``."""

from math import e, exp, log, log2

from deepnet_edu.checks.base import Judge, Misconception, Trial
from deepnet_edu.checks.lesson_12.arms import compare_arms
from deepnet_edu.checks.lesson_12.cached import cached_attention
from deepnet_edu.checks.lesson_12.windows import strided_loss
from deepnet_edu.checks.numbers import apart, grows, number
from deepnet_edu.model.config import ModelConfig
from deepnet_edu.planning import flops_per_token

#: Letters of one, two, three and four bytes.
_TEXTS = [
    (2.0, 7, "Größe ≤ 9"),
    (1.3, 5, "naïve café"),
    (3.251, 4, "日本 means Japan"),
    (0.9, 12, "f(x) → y 🙂"),
]
_PLAIN = [(3.251, 11, "hello world"), (2.0, 3, "Dep"), (0.5, 1, "深"), (0.0, 4, "zero"), (1.0, 1, "x")]


def bits_per_byte(trial: Trial) -> None:
    """The whole text costs nats_per_token * tokens nats; divide by ln 2 for bits, and by the text's bytes in UTF-8."""
    for nats, tokens, text in (*_TEXTS, *_PLAIN):
        right = nats * log2(e) * tokens / _bytes(text)
        wrong = apart(_wrong_bits(nats, tokens, text)) if (nats, tokens, text) in _TEXTS else []
        trial.equal(
            trial.call(nats, tokens, text), right, wrong, f"For {text!r} your number of bits per byte is wrong."
        )
    half = number(trial, 4.0, 8, "sixteen letters.")
    quarter = number(trial, 1.0, 8, "sixteen letters.")
    grows(trial, half, quarter, 0.25, "A quarter of the nats a token, and all else the same: a quarter of the bits.")
    whole = number(trial, 2.0, 16, "sixteen letters.")
    grows(trial, whole, half, 1, "Half as many tokens at twice the nats each cost the same: your values differ.")
    grows(
        trial, number(trial, 2.0, 8, "ab"), number(trial, 2.0, 8, "abab"), 0.5, "Twice the text at the same cost: half."
    )


def _bytes(text: str) -> int:
    """A letter has a byte up to U+007F, two up to U+07FF, three up to U+FFFF, else four."""
    return sum(1 + (ord(c) > 0x7F) + (ord(c) > 0x7FF) + (ord(c) > 0xFFFF) for c in text)


def _wrong_bits(nats: float, tokens: int, text: str) -> list[Misconception]:
    letters, size = len(text), _bytes(text)
    both = "A nat is 1/ln 2 = 1.44 bits: divide by ln 2."
    token = "Those are bits per token: with longer tokens the same model would look worse."
    perplexity = "That is a perplexity, and per token: two tokenizers cannot be compared by it."
    return [
        Misconception(
            nats * tokens / log(2) / letters, "Those are bits per character: an ö has two bytes, a 日 three."
        ),
        Misconception(nats * tokens * log(2) / size, both),
        Misconception(nats * tokens / size, both),
        Misconception(nats * tokens / letters, "Those are nats, and per character: bits per byte are asked for."),
        Misconception(nats / log(2), token),
        Misconception(exp(nats), perplexity),
        Misconception(2**nats, perplexity),
        Misconception(exp(nats * tokens / size), perplexity),
        Misconception(nats * tokens / log(2), "That is the whole text: divide by its bytes."),
        Misconception(nats / log(2) / size, "That is one token's cost: the text has several."),
        Misconception(nats * size / tokens / log(2), "Bytes and tokens are exchanged: what did the whole text cost?"),
        Misconception(
            nats * tokens / log(2) / (2 * letters), "UTF-8 has one to four bytes a letter, and not always two."
        ),
        Misconception(nats * tokens / log(2) / size / 8, "That is in bytes: eight bits each."),
        Misconception(nats * tokens / log(2) / (size + 1), "There is no end mark to count."),
    ]


#: Layers, FLOPs a token, tokens, vocabulary, multiple.
_SHAPES = [
    (3, 9.1e6, 700, 4000, 2),
    (12, 5.0e7, 3000, 5000, 3),
    (7, 3.3e7, 90, 9000, 4),
    (24, 4.4e7, 1500, 3000, 1),
    (40, 6.1e7, 2000, 2000, 8),
]
_EXACT = 2_608_128  # what 8 layers of width 64 cost with 64 tokens and 128 words
_EDGES = [(layers, _EXACT, 64, 128, 8) for layers in (1, 2, 4, 8, 16, 32, 64)] + [
    (16, 2.0e7, 256, 1000, 2),
    (8, _EXACT - 1, 64, 128, 8),
    (8, _EXACT, 64, 128, 1),
    (1, 1e6, 1, 1, 1),
    (2, 300.0, 8, 16, 4),
]


def equal_flop_width(trial: Trial) -> None:
    """A token costs a·d² + b·d with a = 72·layers and b = 6·vocab_size + 6·layers·(tokens + 1). Solve that for the
    budget (or count upwards), and round down to a multiple; it may be exactly the budget.
    """
    for shape in (*_SHAPES, *_EDGES):
        wrong = _wrong_widths(*shape) if shape in _SHAPES else []
        trial.equal(trial.call(*shape), _widest(*shape), wrong, "Another width is the widest that fits the budget.")
    wide, narrow = (number(trial, layers, 1e9, 1, 1, 1) for layers in (4, 64))
    grows(
        trial, narrow, wide, 4, "With hardly any head and attention, 16 times the layers leave a quarter of the width."
    )


def _widest(layers: int, budget: float, tokens: int, vocab_size: int, multiple: int) -> int:
    """All multiples by trial, with the library's count; in steps of many first."""

    def fits(d: int) -> bool:
        shape = {"d_model": d, "n_heads": 1, "d_ff": 4 * d, "vocab_size": vocab_size}
        cost = flops_per_token(ModelConfig("decoder", "lm", layers, residual="pre_ln", **shape), tokens)  # type: ignore[arg-type]
        return cost is not None and cost <= budget

    step, d = 1024 * multiple, 0
    while step >= multiple:
        while fits(d + step):
            d += step
        step //= 2
    return d


def _wrong_widths(layers: int, budget: float, tokens: int, vocab_size: int, multiple: int) -> list[Misconception]:
    def solved(a: float, b: float) -> int:
        d = (-b + (b * b + 4 * a * budget) ** 0.5) / (2 * a)
        return int(d + 1e-9) // multiple * multiple

    L, T, V = layers, tokens, vocab_size
    stack, head, attention = 72 * L, 6 * V, 6 * L * (T + 1)
    right = (-(head + attention) + ((head + attention) ** 2 + 4 * stack * budget) ** 0.5) / (2 * stack)
    backward = "That is a forward pass alone: training costs three."
    above = "That can cost more than the budget: round down."
    masked = "A token sees (T + 1)/2 tokens on average: masked pairs do not count."
    others = [
        Misconception(solved(stack, 0), "Those are the stack's matrices alone: head and attention cost as well."),
        Misconception(solved(stack, attention), "The head's vocab_size · d weights are missing."),
        Misconception(
            solved(stack, head), "What attention computes with its scores is missing: 6·layers·d·(tokens + 1)."
        ),
        Misconception(solved(stack, head + 12 * L * T), masked),
        Misconception(solved(stack, head + 2 * attention), masked),
        Misconception(solved(stack / 3, (head + attention) / 3), backward),
        Misconception(solved(stack, 2 * head + attention), "Looking up a token costs nothing: only the head counts."),
        Misconception(int(right), "The width must be a multiple of the number given."),
        Misconception(int(right // multiple), "That is how often the multiple fits: the width is asked for."),
        Misconception(solved(stack / 12, (head + attention)), "A layer has 12·d² weights."),
        Misconception(solved(stack / 2, head + attention), "A layer has 12·d² weights: 4 in attention, 8 in the rest."),
    ]
    # Where the nearest is too wide it is the next one: there rounding up or to the nearest is seen.
    nearest = round(right / multiple) * multiple
    return [*([Misconception(nearest, above)] if nearest > right else []), *apart(others)]


JUDGES: dict[str, Judge] = {
    "bits_per_byte": bits_per_byte,
    "equal_flop_width": equal_flop_width,
    "compare_arms": compare_arms,
    "strided_loss": strided_loss,
    "cached_attention": cached_attention,
}

"""How good translations are: BLEU and chrF by sacreBLEU, with its signatures and bootstrap intervals.

A placeholder counts as one word, see :func:`~deepnet_edu.data.placeholders.one_word`: else ``%(name)s`` is five words
that any copying program gets right. Scoring is a part of ``data`` for that reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from deepnet_edu.data.placeholders import kept, one_word, placeholders
from deepnet_edu.fields import checked
from deepnet_edu.messages import UserError, unknown

#: How sacreBLEU cuts sentences into words; ``"char"`` for languages written without spaces.
TOKENIZERS = ("13a", "intl", "char", "zh", "none")
#: Beyond this many numbers, draws times sentences, sacreBLEU's tables take several GB.
MOST = 5_000_000


class Interval(NamedTuple):
    """A score and the 95% interval of its bootstrap: over other sentences, not over other seeds."""

    score: float
    low: float
    high: float
    p: float | None

    def __str__(self) -> str:
        p = "" if self.p is None else f", p = {self.p:.3f}"
        return f"{self.score:.1f} [{self.low:.1f}, {self.high:.1f}]{p}"


@dataclass(frozen=True)
class Scores:
    """Scores of several systems on the same sentences.

    Attributes:
        systems: by name, BLEU and chrF in percent; ``p`` says how likely so large a difference from the first system
            would be by the choice of sentences alone, by sacreBLEU's paired bootstrap; None for the first. Its p is
            one-sided in effect: of two equal systems it is below 0.05 for one pair in ten.
        kept: by name, the share of sentences with placeholders whose output has them all; None where none has any.
        signatures: of BLEU and of chrF, what sacreBLEU did.
        sentences: number of them.
    """

    systems: dict[str, dict[str, Interval]]
    kept: dict[str, float | None]
    signatures: dict[str, str]
    sentences: int

    def __str__(self) -> str:
        rows = [["", *self.signatures, "placeholders kept"]]
        for name, found in self.systems.items():
            share = self.kept[name]
            rows.append([name, *map(str, found.values()), "" if share is None else f"{share:.0%}"])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        return "\n".join([*lines, *(f"{name}: {signature}" for name, signature in self.signatures.items())])

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        systems = {name: {metric: i._asdict() for metric, i in found.items()} for name, found in self.systems.items()}
        return asdict(self) | {"systems": systems}


@checked()
def compare(
    systems: Mapping[str, Any],
    references: Sequence[str],
    sources: Sequence[str] | None = None,
    *,
    tokenize: str = "13a",
    draws: int = 1000,
) -> Scores:
    """Score the outputs of one or more systems.

    The draws are those of sacreBLEU's seed, 12345 or the environment's SACREBLEU_SEED. They take each sentence for
    independent of all others: of a source in many languages it is not, and intervals over all of them are too narrow.

    Args:
        systems: by name, an output for each reference, which may be empty; the first is what others are compared with.
        references: the right translations.
        sources: what was translated, to see whether placeholders are kept; None to ask the references.
        tokenize: how BLEU cuts words, one of :data:`TOKENIZERS`; chrF looks at letters.
        draws: of the bootstrap.

    Raises:
        ValueError: there are no sentences or systems, not as many outputs as references, or more draws times sentences
            than fit into memory.
        UserError: sacreBLEU is not installed.

    Source: Papineni et al. 2002; Popović 2015; Koehn 2004 (the paired bootstrap); Post 2018, arXiv 1804.08771.
    """
    if tokenize not in TOKENIZERS:
        raise ValueError(unknown("tokenize", tokenize, TOKENIZERS))
    if not systems or not references:
        raise ValueError("Nothing to score: give one system and one reference at least.")
    if not 1 <= draws <= MOST // len(references):
        raise ValueError(
            f"draws={draws} of {len(references)} sentences: expected 1 to {MOST // len(references)} draws, or fewer "
            "sentences; beyond it sacreBLEU's tables take several GB."
        )
    for name, outputs in {**systems, "sources": sources or references}.items():
        if isinstance(outputs, str) or len(outputs) != len(references):
            raise ValueError(f"{name}: expected a list of {len(references)}, one for each reference.")
    try:
        from sacrebleu.metrics import BLEU, CHRF
        from sacrebleu.significance import PairedTest
    except ImportError:
        raise UserError("Scoring needs sacreBLEU: python -m pip install sacrebleu") from None
    # force: outputs that look tokenized are not a mistake here.
    metrics = {"BLEU": BLEU(tokenize=tokenize, force=True), "chrF": CHRF()}
    told: Any = [(name, list(map(one_word, outputs))) for name, outputs in systems.items()]
    test = PairedTest(told, metrics, [list(map(one_word, references))], test_type="bs", n_samples=draws)
    signatures, found = test()
    results = {name: found[key] for name, key in zip(metrics, signatures, strict=True)}
    return Scores(
        {name: {metric: _interval(of[i], of[0]) for metric, of in results.items()} for i, name in enumerate(systems)},
        {name: _kept(sources or references, outputs) for name, outputs in systems.items()},
        {
            name: f"{signature}|placeholders:one word"
            for name, signature in zip(metrics, signatures.values(), strict=True)
        },
        len(references),
    )


def _interval(result: Any, first: Any) -> Interval:
    mean, half = float(result.mean), float(result.ci)
    # Where scores are equal sacreBLEU says 1/(draws + 1), since no draw differs by more than nothing.
    p = 1.0 if result.p_value is not None and result.score == first.score else result.p_value
    return Interval(float(result.score), mean - half, mean + half, p)


def _kept(sources: Sequence[str], outputs: Sequence[str]) -> float | None:
    asked = [kept(source, output) for source, output in zip(sources, outputs, strict=True) if placeholders(source)]
    return sum(asked) / len(asked) if asked else None

"""The English of lessons, pages, docstrings, comments and messages: none of the words that make a reader stumble.

Read are Markdown files, and of Python files comments and strings. Code is no prose: what is between backticks or in
blocks of a page, a field of an f-string, and a string of one word.
"""

import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

from deepnet_edu.course.places import ROOT

#: What to write, and a pattern of what is not written instead of it; a pattern names its exceptions.
WORDS = {
    "continue, resume": r"\b(go|goes|going|gone|went) on\b(?! strike)",
    "a reader, a learner, anyone who, no one": r"\b(nobody|somebody|whoever)\b",
    "anyone who, a model that": r"\b(of|for|by|from|than) who\b(?! in SCHEDULER)",
    "anyone who, a model that (at the start)": r"(?:^|[.:;] )(?-i:Who) (?!(may|can|takes)\b)[^.?]*\.",
    "similar, equal, in the same way": r"\balike\b",
    "again": r"\banew\b",
    "fix, repair": r"\bmend(s|ed|ing)?\b",
    "is not a": r"(?<!there )\b(is|are|was|were|be) no\b"
    r"(?! (longer|more|less|fewer|better|worse|larger|smaller|faster|slower|wider|deeper|matter|way|one|need|use)\b)",
    "this many, n": r"\bso many\b",
    "checked, audited, measured": r"\blooked at\b",
    "interactively": r"\bunder the finger\b",
    "bookkeeping": r"\b(own )?books of\b|\bown books\b",
    "start-up cost, first words": r"\bbeginnings\b",
    "exactly, all of": r"\bto the last one\b",
    "is, is written, is kept, holds": r"\b(stand|stands|stood)\b(?! (for|in for|out|alone|apart|still)\b)"
    r"|\b(lies|lay|lain)\b(?! (between|on|above|below|within|inside|outside|near|under)\b)",
    "rotary embedding": r"\bturned by (its |the )?(position|angle)",
    "after": r"\bbehind (it|them)\b",
    "outputs, logits": r"\bmodel's answers?\b|\banswers? of (a|the|two|both|each|its|this|these) models?\b",
}
#: Names that a learner types or that records hold, and quotations.
KEPT = re.compile(
    r"tokens alike from the start"  # a cause in lesson 16 and in its record
    r"|mend: the command"  # a field of deepnet-edu doctor --json
    r"|finding\.mend"
)
#: Made from sources that are read here, and this list.
APART = re.compile(r"course/references/|docs/exercises\.md|tests/house/test_words\.py")
PATTERNS = ["*.md", "*.py", "docs/*.md", "solutions/*.py"]
PATTERNS += [f"{room}/**/*.{kind}" for room in ("deepnet_edu", "benchmarks", "tests") for kind in ("py", "md", "c")]
FILES = sorted(
    path for pattern in PATTERNS for path in ROOT.glob(pattern) if not APART.search(path.relative_to(ROOT).as_posix())
)
CODE = re.compile(r"(`+)[^`]+\1")
BLOCK = re.compile(r"^```.*?^```|^    .*?$", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"\{[^{}]*\}")


def _blank(code: re.Match[str]) -> str:
    return "_" + "\n" * code[0].count("\n")


def passages(path: Path) -> list[tuple[int, str]]:
    """The prose of a file, each passage with its first line.

    Comments that follow each other are one passage, and so are strings that Python joins.
    """
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [(1, BLOCK.sub(_blank, text))]
    found: list[tuple[int, str]] = []
    joins, last = False, -1
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line = token.start[0]
        if token.type == tokenize.COMMENT:
            words = token.string.lstrip("#: ")
            if line == last + 1:
                found[-1] = (found[-1][0], f"{found[-1][1]}\n{words}")
            else:
                found.append((line, words))
            joins, last = False, line
        elif token.type == tokenize.STRING:
            words = FIELD.sub("…", re.sub(r'^\w*("""|\'\'\'|"|\')(.*)\1$', r"\2", token.string, flags=re.DOTALL))
            if joins:
                found[-1] = (found[-1][0], found[-1][1] + "\n" * (line - last) + words)
            else:
                found.append((line, words))
            joins, last = True, token.end[0]
        elif token.type not in (tokenize.NL, tokenize.NEWLINE):
            joins = False
    return found


@cache
def words_of(path: Path) -> list[tuple[list[int], str]]:
    """The prose of a file, each passage on one line; and the line of each of its words."""
    found = []
    for first, text in passages(path):
        text = CODE.sub(_blank, text)
        words = text.split()
        if len(words) > 1:  # one word is a name
            lines = [line for line, part in enumerate(text.split("\n"), first) for _ in part.split()]
            found.append((lines, " ".join(words)))
    return found


def hits(path: Path, pattern: str) -> list[str]:
    """Where a file has what ``pattern`` tells, with some words around it."""
    found = []
    for lines, words in words_of(path):
        for hit in re.finditer(pattern, words, re.IGNORECASE):
            around = words[max(0, hit.start() - 60) : hit.end() + 60]
            if not KEPT.search(around):
                found.append(f"{path.relative_to(ROOT)}:{lines[words.count(' ', 0, hit.start())]}: {around}")
    return found


@pytest.mark.parametrize("better", WORDS)
def test_words_that_make_a_reader_stumble_are_not_written(better: str) -> None:
    found = [hit for path in FILES for hit in hits(path, WORDS[better])]
    assert found == [], f"write instead: {better}"


@pytest.mark.parametrize(
    ("better", "sentence"),
    [
        ("continue, resume", "A run that was stopped goes on."),
        ("a reader, a learner, anyone who, no one", "Whoever waits is told."),
        ("anyone who, a model that", "the loss of who knows nothing"),
        ("anyone who, a model that (at the start)", "Who says nothing does no harm."),
        ("is not a", "The value is no number."),
        ("this many, n", "a stack of so many layers"),
        ("is, is written, is kept, holds", "The norm stands on the sum."),
        ("is, is written, is kept, holds", "The record lies in results."),
        ("outputs, logits", "the model's answers"),
    ],
)
def test_the_patterns_find_them(better: str, sentence: str) -> None:
    assert re.search(WORDS[better], sentence, re.IGNORECASE)


@pytest.mark.parametrize(
    "sentence",
    [
        "There is no α.",
        "It is no longer finite.",
        "α stands for a factor.",
        "The point lies on the line.",
        "Who can take part?",
        "the answers of a learner",
    ],
)
def test_what_may_be_written_is_not_found(sentence: str) -> None:
    assert [better for better, pattern in WORDS.items() if re.search(pattern, sentence, re.IGNORECASE)] == []

"""The judge of lesson 13's placeholders: each one word, and nothing else."""

import re
from collections.abc import Iterator

from deepnet_edu.checks.base import Trial
from deepnet_edu.checks.trial import TYPE, VALUE
from deepnet_edu.checks.values import describe, short

#: Messages as programs have them, each with what it must become.
_WITH = (
    ("Hello %(name)s!", "Hello XX!"),
    ("%(count)d of %(total)d files", "XX of XX files"),
    ("%(first)s and %(last)s", "XX and XX"),
    ("%s is not a valid %s.", "XX is not a valid XX."),
    ("Page %d of %i", "Page XX of XX"),
    ("%f seconds, %s left", "XX seconds, XX left"),
    ("%(size)f MB", "XX MB"),
    ("%(rank)i. %(who)s", "XX. XX"),
    ("Delete {}?", "Delete XX?"),
    ("{} of {}", "XX of XX"),
    ("Dear {name}, you have {n_files} files", "Dear XX, you have XX files"),
    ("{0} before {1}", "XX before XX"),
    ("{a}{b}", "XXXX"),
    ('<a href="%(url)s">Log in</a>', "XXLog inXX"),
    ('Read <a href="/docs/" class="x">this</a> and <b>that</b>.', "Read XXthisXX and XXthatXX."),
    ("<strong>%(count)s</strong> new", "XXXXXX new"),
    ("one<br/>two<br>three", "oneXXtwoXXthree"),
    ("<h2>{title}</h2>", "XXXXXX"),
    ("%(a)s %s {} {b} <i>", "XX XX XX XX XX"),
    ("%(über)s", "XX"),
    ("(%s)", "(XX)"),
    ("100% of %(name)s", "100% of XX"),
    ("“%(value)s” value must be an integer.", "“XX” value must be an integer."),
    ("%s%s", "XXXX"),
    ("x < %(y)s", "x < XX"),
)
_WITHOUT = (
    "50 % of the users", "100%", "100 %", "x < y", "x < y and y > z", "(name)", "5 > 3", "a % b", "100% sure",
    "Please log in (again).", "50% done", "a <- b", "1 < 2 > 0", "name)s", "%", "<", "", "XX is a word", "%(name)",
)  # fmt: skip
#: Patterns that people write, and what to say.
_WRONG = (
    (r"%\(.*\)[sdif]|%[sdif]\b|\{.*\}|<.*>", "swallowed"),
    (r"%\(.*\)[sdif]|%[sdif]\b|\{.*\}|</?\w.*>", "swallowed"),
    (r"%\(.*\)[sdif]|%[sdif]\b|\{\w*\}|</?\w[^<>]*>", "swallowed"),
    (r"%\(\w+\)[sdif]|%[sdif]\b|\{.*\}|</?\w[^<>]*>", "swallowed"),
    (r"%\(\w+\)[sdif]|%[sdif]\b|\{\w*\}|</?\w.*>", "swallowed"),
    (r"%\(\w+\)[sdif]|%[sdif]\b|\{\w*\}|<.*>", "swallowed"),
)


def one_word(trial: Trial) -> None:
    """Replace by XX, in one re.sub with four patterns joined by |: a percent sign, a name in parentheses and one of the
    four letters; a percent sign and such a letter at a word's end; braces around nothing or a name; and a tag from its
    opening sign to the next closing one. Inside of a placeholder only characters that it can have are allowed.
    """
    answers = {}
    for message in (*(text for text, _ in _WITH), *_WITHOUT):
        got = trial.call(message)
        trial.require(isinstance(got, str), "The answer is a text.", got=describe(got), rung=TYPE)
        answers[message] = got
    for message, sentence in _complaints(answers):
        right = dict(_WITH).get(message, message)
        trial.call(message)  # so that the card names this call
        trial.require(False, sentence, short(right), short(answers[message]), VALUE)


def _complaints(answers: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Messages whose answer is wrong, each with its sentence; the most telling comes first."""
    right = dict(_WITH) | {message: message for message in _WITHOUT}
    bad = [message for message in answers if answers[message] != right[message]]
    for message in bad:
        if any(answers[message] == re.sub(pattern, "XX", message) for pattern, _ in _WRONG):
            yield message, "The text between two placeholders was swallowed: .* takes as much as it can."
    for message in bad:
        if message in _WITHOUT:
            yield message, 'This message has no placeholder: leave "50 % of", "x < y" and "(name)" as they are.'
    for message in bad:
        wanted, found = right[message].count("XX"), answers[message].count("XX")
        if wanted != found:
            yield message, f"It has {_number(wanted)}; you found {found}."
        elif answers[message].split() == right[message].replace("XX", " XX ").split():
            yield message, "Leave the spaces around a placeholder as they are."
        else:
            yield message, "A placeholder becomes XX, and the text around it stays as it is."


def _number(count: int) -> str:
    return "1 placeholder" if count == 1 else f"{count} placeholders"

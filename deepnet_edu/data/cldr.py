"""Names, dates and units in many languages, as the Unicode CLDR in Babel has them."""

from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from random import Random
from typing import Any

from deepnet_edu.data.translation import Pair
from deepnet_edu.messages import UserError, shown

_NAMES = ("languages", "territories", "scripts", "currencies")
_UNITS = (
    "length-kilometer", "length-meter", "length-centimeter", "length-mile", "length-foot", "mass-kilogram",
    "mass-gram", "mass-tonne", "mass-pound", "volume-liter", "volume-milliliter", "volume-cubic-meter",
    "area-square-kilometer", "area-square-meter", "area-hectare", "duration-year", "duration-month", "duration-week",
    "duration-day", "duration-hour", "duration-minute", "duration-second", "temperature-celsius",
    "speed-kilometer-per-hour", "speed-meter-per-second", "power-watt", "power-kilowatt", "digital-megabyte",
    "digital-gigabyte", "frequency-hertz",
)  # fmt: skip
#: Days of which dates are made, and how many there are: to the end of 2049.
FIRST_DAY, DAYS = date(1950, 1, 1), 36_525


def name_pairs(languages: Sequence[str]) -> Iterator[Pair]:
    """Names of languages, territories, scripts and currencies; none for a language that CLDR lacks."""
    english = _locale("en")
    for language in languages:
        locale = _locale(language)
        for kind in _NAMES if locale else ():
            there = getattr(locale, kind)
            for code, name in getattr(english, kind).items():
                if there.get(code, code) != code:
                    yield Pair(_spaced(name), _spaced(there[code]), language)


def date_pairs(languages: Sequence[str], count: int, seed: int = 0) -> Iterator[Pair]:
    """Dates of 1950 to 2049, a third each with its weekday, without, and as a span of up to 60 days.

    No day comes twice, and all languages have the same ones; none for a language that CLDR lacks.

    Args:
        languages: targets.
        count: of dates, :data:`DAYS` at most.
        seed: of the days.

    Raises:
        ValueError: there are not that many days.
    """
    if not 0 <= count <= DAYS:
        raise ValueError(f"count={shown(count)}: expected 0 to {DAYS}, the days of 1950 to 2049.")
    from babel.dates import format_date, format_interval

    draw = Random(f"dates {seed}")
    numbers = draw.sample(range(DAYS), count)
    days = [(FIRST_DAY + timedelta(number), timedelta(draw.randint(1, 60))) for number in numbers]

    def written(locale: Any) -> list[str]:
        texts = []
        for i, (day, longer) in enumerate(days):
            if i % 3 == 2:
                texts.append(format_interval(day, day + longer, "yMMMMd", locale=locale))
            else:
                texts.append(format_date(day, ("full", "long")[i % 3], locale=locale))
        return texts

    return _paired(written, languages)


def unit_pairs(languages: Sequence[str], count: int, seed: int = 0) -> Iterator[Pair]:
    """``count`` amounts such as ``2.5 kilograms``, the same in all languages.

    None for a language that CLDR lacks, or where it has no words for the unit.
    """
    from babel.units import format_unit

    draw = Random(f"units {seed}")
    numbers = [draw.randint(1, 9_999) / draw.choice((1, 10, 100)) for _ in range(count)]
    amounts = [(int(n) if n == int(n) else n, draw.choice(_UNITS)) for n in numbers]

    def written(locale: Any) -> list[str]:
        texts = [(unit, format_unit(number, unit, "long", locale=locale)) for number, unit in amounts]
        return ["" if unit in text else text for unit, text in texts]  # Babel's sign that there are no words

    return _paired(written, languages)


def _paired(written: Any, languages: Sequence[str]) -> Iterator[Pair]:
    sources = written(_locale("en"))
    for language in languages:
        if (locale := _locale(language)) is not None:
            for source, target in zip(sources, written(locale), strict=True):
                if source and target:
                    yield Pair(_spaced(source), _spaced(target), language)


def _spaced(text: str) -> str:
    """Text with ordinary spaces alone; CLDR has thin ones and non-breaking ones."""
    return " ".join(text.split())


def _locale(language: str) -> Any:
    try:
        from babel import Locale, UnknownLocaleError
    except ImportError:
        raise UserError("Babel, whose CLDR is read, is not installed: python -m pip install babel") from None
    try:
        return Locale.parse(language)
    except (UnknownLocaleError, ValueError):  # the latter where a name is not of the form at all
        return None

import pytest

from deepnet_edu.data import Pair, kept, one_word, protect, restore
from deepnet_edu.data.placeholders import placeholders


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("%(name)s of %(size)d", ["%(name)s", "%(size)d"]),
        ("%s: %d, %(rate).1f", ["%s", "%d"]),
        ("{} and {name}", ["{}", "{name}"]),
        ('<a href="%(url)s">here</a>', ['<a href="%(url)s">', "</a>"]),
        ("50 % of", []),
        ("100%", []),
        ("x < y and y > z", []),
        ("(name)s", []),
        ("%(n)03d", ["%(n)03d"]),
    ],
)
def test_what_is_a_placeholder(text: str, found: list[str]) -> None:
    assert placeholders(text) == found


def test_one_word_each() -> None:
    assert one_word("Delete %(name)s?") == "Delete XX ?"
    assert one_word("{n}件を削除") == "XX 件を削除"
    assert one_word("100% of it") == "100% of it"


def test_protected_and_restored() -> None:
    pair = Pair("Move %(a)s to {b}, %(a)s", "{b} bekommt %(a)s, %(a)s", "de")
    safe = protect(pair)
    assert placeholders(safe.source) == placeholders(safe.target) == []
    assert safe.language == "de"
    assert safe.source == "Move \ue000 to \ue001, \ue000"
    assert safe.target == "\ue001 bekommt \ue000, \ue000"
    assert restore(safe.source, pair.source) == pair.source
    assert restore(safe.target, pair.source) == pair.target
    assert kept(*pair[:2])


def test_what_a_model_writes_wrongly_is_seen() -> None:
    source = "Move %(a)s to {b}"
    for output in ("\ue000", "\ue000 \ue001 \ue001", "\ue000 \ue005", ""):
        found = restore(output, source)
        assert not kept(source, found)
        assert "\ue005" not in found
    assert kept(source, restore("\ue001: \ue000", source))


def test_a_target_s_own_placeholder_is_left() -> None:
    assert protect(Pair("a", "%(b)s")).target == "%(b)s"


def test_letters_that_stand_for_placeholders_already() -> None:
    with pytest.raises(ValueError, match=r"has the letter U\+E000"):
        protect(Pair("a \ue000", "b"))
    with pytest.raises(ValueError, match="70 different placeholders: expected 64"):
        protect(Pair("".join(f"{{a{i}}}" for i in range(70)), "b"))

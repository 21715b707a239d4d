"""Links of lessons to the glossary: each leads to its word, and one that leads nowhere is refused."""

import pytest

from deepnet_edu.course.glossary import anchors, linked, slug
from deepnet_edu.course.places import DOCS
from deepnet_edu.messages import UserError

KNOWN = ["stream", "input-share", "xavier", "bleus-signature"]


@pytest.mark.parametrize(
    ("word", "anchor"),
    [
        ("Input share", "input-share"),
        ("Packed QKV", "packed-qkv"),
        ("BLEU's signature", "bleus-signature"),
        ("**Token similarity**", "token-similarity"),
        ("1F1B", "1f1b"),
    ],
)
def test_the_anchor_of_a_word(word: str, anchor: str) -> None:
    assert slug(word) == anchor
    assert anchor in anchors((DOCS / "glossary.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("written", "link"),
    [
        ("[stream](glossary.md)", "[stream](glossary.md#stream)"),
        ("[**Input share**](glossary.md)", "[**Input share**](glossary.md#input-share)"),
        ("[Input\nshare](glossary.md)", "[Input\nshare](glossary.md#input-share)"),
        ("[Xavier's](glossary.md)", "[Xavier's](glossary.md#xavier)"),
        ("[BLEU's signature](glossary.md)", "[BLEU's signature](glossary.md#bleus-signature)"),
        ("[part of it](glossary.md#input-share)", "[part of it](glossary.md#input-share)"),
        ("all words: [glossary](glossary.md)", "all words: [glossary](glossary.md)"),
        ("[symbols](notation.md) [x](glossary.txt)", "[symbols](notation.md) [x](glossary.txt)"),
    ],
)
def test_a_link_leads_to_its_word(written: str, link: str) -> None:
    assert linked(written, KNOWN, "01_x") == link


@pytest.mark.parametrize("link", ["[part of it](glossary.md)", "[share](glossary.md#inputshare)", "[x](glossary.md#)"])
def test_a_link_that_leads_nowhere_is_refused(link: str) -> None:
    with pytest.raises(UserError, match=r"01_x, \[.*Unknown word of the glossary .* write \["):
        linked(f"Some text, {link}.", KNOWN, "01_x")

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from deepnet_edu.data import BytePairs, python_documents
from deepnet_edu.data import bpe as module
from deepnet_edu.messages import UserError

TEXTS = [
    "",
    " ",
    "plain text, twice  spaced\n\n\tand a tab\r\n",
    "Grüße, naïve café — “quotes”",
    "日本語 한국어 العربية हिन्दी",
    "👩‍👩‍👧‍👦 🇩🇪 \U0001f9ff",
    "e\u0301 is not é",
    "\x00\x07\x7f\ufeff\uffff\u2028",
    "<pad><start><end> </s> Ġ Ċ",
]


@pytest.fixture(scope="module")
def pairs() -> BytePairs:
    return BytePairs.train(python_documents()[:20], 600, languages=["de", "en"])


@pytest.mark.parametrize("text", TEXTS)
def test_the_round_trip_is_exact(pairs: BytePairs, text: str) -> None:
    for tokenizer in (pairs, BytePairs()):
        tokens = tokenizer.encode(text)
        assert tokenizer.decode(tokens) == text
        # No text is read as a special token.
        assert all(3 + len(tokenizer.languages) <= token < tokenizer.vocab_size for token in tokens)


def test_the_round_trip_is_exact_for_random_text(pairs: BytePairs) -> None:
    points = torch.randint(0x110000, (3000,), generator=torch.Generator().manual_seed(0)).tolist()
    text = "".join(chr(point) for point in points if not 0xD800 <= point < 0xE000)
    assert pairs.decode(pairs.encode(text)) == text


def test_without_merges_a_token_is_a_byte() -> None:
    tokenizer = BytePairs()
    assert tokenizer.vocab_size == 256 + 3
    for text in TEXTS:
        assert len(tokenizer.encode(text)) == len(text.encode())


def test_merges_are_those_of_the_tokenizers_library() -> None:
    documents = python_documents()[:10]
    theirs = Tokenizer(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, min_frequency=2, show_progress=False, initial_alphabet=alphabet)
    theirs.train_from_iterator(documents, trainer)
    ours = BytePairs.train(documents, 403)
    assert ours.vocab_size == 403
    assert ours.encode(documents[0]) == [token + 3 for token in theirs.encode(documents[0]).ids]


def test_training_shortens_what_it_has_seen(pairs: BytePairs) -> None:
    assert pairs.vocab_size == 600
    text = python_documents()[0]
    assert len(pairs.encode(text)) < 0.6 * len(BytePairs().encode(text))


def test_pairs_that_occur_once_are_not_merged() -> None:
    assert BytePairs.train("abc", 1000).merges == ()
    assert BytePairs.train("ab ab", 1000).merges == ("a b",)
    assert BytePairs.train("ab ab", 1000).vocab_size == 260


def test_many_texts_are_as_one_by_one(pairs: BytePairs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TOGETHER", 4)
    assert list(pairs.encode_many(iter(TEXTS))) == [pairs.encode(text) for text in TEXTS]
    assert list(pairs.encode_many([])) == []


def test_special_tokens_and_tags_are_numbers_of_their_own(pairs: BytePairs) -> None:
    special = [pairs.pad, pairs.start, pairs.end, pairs.tag("de"), pairs.tag("en")]
    assert special == [0, 1, 2, 3, 4]
    assert pairs.decode([pairs.start, *pairs.encode("ab"), pairs.end, -100, pairs.tag("en")]) == "ab"
    assert pairs.decode(pairs.encode("é")[:1]) == "�"
    with pytest.raises(ValueError, match="Unknown language 'dee': did you mean 'de'"):
        pairs.tag("dee")
    with pytest.raises(ValueError, match=r"No tag for 'de': give the languages when training"):
        BytePairs().tag("de")


def test_saved_and_loaded(pairs: BytePairs, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    pairs.save(path)
    pairs.save(path)
    again = BytePairs.load(path)
    assert [file.name for file in tmp_path.iterdir()] == ["pairs.json"]
    assert (again.merges, again.languages, again.vocab_size) == (pairs.merges, pairs.languages, pairs.vocab_size)
    assert again.encode("def f(x):\n    return ünïcode") == pairs.encode("def f(x):\n    return ünïcode")


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "thesis.json"
    path.write_text("{}")
    with pytest.raises(UserError, match=r"thesis.json is there already and holds no byte pairs: it is left alone"):
        BytePairs().save(path)
    assert path.read_text() == "{}"


def test_damaged_files_are_refused(pairs: BytePairs, tmp_path: Path) -> None:
    path = tmp_path / "pairs.json"
    with pytest.raises(UserError, match=r"pairs.json holds no byte pairs \(No such file or directory\): train them"):
        BytePairs.load(path)
    pairs.save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    content = json.loads(whole)
    damaged = [whole[: len(whole) // 2], b"", b"[]", b"3", b"\xff\xfe", b"{}", bytes(flipped)]
    damaged += [
        json.dumps(content | change).encode()
        for change in ({"merges": content["merges"][:-1]}, {"format": "other"}, {"languages": ["de"]}, {"sha256": 0})
    ]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(UserError, match="holds no byte pairs") as caught:
            BytePairs.load(path)
        assert "\n" not in str(caught.value)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="vocab_size=260: expected 261 or more, 5 for special tokens and tags, 256"):
        BytePairs.train("text", 260, languages=["de", "en"])
    with pytest.raises(ValueError, match="languages='de': expected a list of different names"):
        BytePairs.train("text", 1000, languages="de")
    with pytest.raises(ValueError, match="languages=.*: expected a list of different names"):
        BytePairs(languages=["de", "de"])
    with pytest.raises(ValueError, match="merge 'ab c': expected two pieces that exist before it"):
        BytePairs(["ab c"])
    with pytest.raises(ValueError, match="Expected Unicode text"):
        BytePairs().encode("\ud800")
    with pytest.raises(ValueError, match="token 259: expected less than vocab_size, 259"):
        BytePairs().decode([259])


def test_importing_data_imports_neither_tokenizers_nor_datasets() -> None:
    code = "import sys, deepnet_edu.data; print({'tokenizers', 'datasets', 'pyarrow'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"

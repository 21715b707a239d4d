"""What `deepnet-edu data NAME --stats` counts, on small sets."""

import json
import subprocess
import sys

import pytest
import torch

from deepnet_edu.data import Images, Pair, Parts
from deepnet_edu.data.sets import SETS, find_set, image_stats, stats, text_stats, translation_stats
from deepnet_edu.messages import UserError

PARTS = Parts(
    [Pair(f"Delete file {i}", f"Datei {i} löschen", "de") for i in range(40)],
    [Pair("Delete {n} pages", "{n} Seiten löschen", "de")],
    [Pair(f"Delete {{n}} files in {i}", f"{{n}} Dateien in {i} löschen", "de") for i in range(5)],
)


def test_each_set_says_what_it_is() -> None:
    for name, one in SETS.items():
        assert one.kind in ("text", "translation", "images")
        assert one.title and one.licence and one.load.endswith(")"), name  # noqa: PT018


def test_of_text() -> None:
    found = text_stats(Parts(["abc " * 400, "Größe"], ["abd " * 20], ["abc " * 40]))
    assert found["parts"]["train"] == {"documents": 2, "characters": 1607, "bytes": 1609}
    assert found["bits_per_byte"]["train"]["order 0"] > found["bits_per_byte"]["train"]["order 3"]
    assert list(found["bits_per_byte"]["test"]) == ["order 0", "order 1", "order 2", "order 3", "zlib", "lzma"]
    assert found["shared"] > 0  # "abc abc …" is in training and in test
    json.dumps(found)


def test_of_translations() -> None:
    found = translation_stats(PARTS)
    assert found["languages"] == ["de"]
    assert (found["parts"]["train"]["pairs"], found["parts"]["test"]["sources"]) == (40, 5)
    assert found["shared"] == 0
    systems = found["yardsticks"]["systems"]
    assert list(systems) == ["copied source", "most similar", "empty output"]
    assert found["yardsticks"]["kept"] == {"copied source": 1.0, "most similar": 0.0, "empty output": 0.0}
    json.dumps(found)


def test_a_planted_leak_is_counted() -> None:
    leaking = Parts([*PARTS.train, Pair("DELETE %(n)s FILE, IN 3!", "gestohlen", "de")], PARTS.validation, PARTS.test)
    assert translation_stats(leaking)["shared"] == 1


def test_of_images() -> None:
    pixels = torch.arange(100.0)[:, None, None].expand(100, 2, 2).numpy()
    found = image_stats(Images(pixels, [i // 50 for i in range(100)]))
    assert (found["shape"], found["classes"], found["shared"]) == ([1, 2, 2], 2, 0)
    assert found["accuracy"]["nearest neighbour"] > 0.9
    assert sum(sum(part["by_class"]) for part in found["parts"].values()) == 100
    json.dumps(found)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(UserError, match="Unknown data set 'python_doc': did you mean 'python_docs'"):
        find_set("python_doc")
    with pytest.raises(UserError, match="digits has no choice of languages: leave them out"):
        stats("digits", ["de"])
    with pytest.raises(UserError, match="Unknown language 'dee': did you mean 'de'"):
        stats("multilingual", ["dee"])


def test_nothing_large_is_imported_before_it_is_used() -> None:
    code = "import sys, deepnet_edu.data.sets, deepnet_edu.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"sklearn", "scipy", "django", "babel", "sacrebleu", "mlxtend", "PIL.Image"} & {*loaded}

"""DeepNorm decoders of other libraries: two have the paper's formula, one has not, none draws the paper's weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from benchmarks.peer_models import OURS, PEERS, Peer, at_initialisation, gains, of_a_misspelt_option, off_by
from deepnet_edu.model.shape import Shape

SHAPE = Shape(d_model=16, n_heads=2, d_ff=32)
RECORD = json.loads(Path(peers.RESULTS).read_text(encoding="utf-8"))["decoders"]
#: Whether α is on the skip.
RIGHT = {"TorchScale": True, "labml-nn": False, "x-transformers": True}


def needed(name: str) -> Peer:
    if name in PEERS:
        try:
            PEERS[name].misspelt()
        except ImportError as error:
            pytest.skip(f"{error}: pip install --no-deps -r benchmarks/peers.txt -r tests/peers/reviewed.txt")
        except Exception:  # it is here, and refuses the option
            pass
    return PEERS.get(name, OURS)


@pytest.mark.peers
@pytest.mark.parametrize("name", PEERS)
def test_the_formula_with_equal_weights(name: str) -> None:
    found = off_by(needed(name), 3, SHAPE)
    assert (max(found.values()) < 1e-5) is RIGHT[name]
    assert RIGHT[name] or min(found.values()) > 0.1


@pytest.mark.peers
@pytest.mark.parametrize("name", ["deepnet_edu", *PEERS])
def test_what_is_drawn(name: str) -> None:
    peer = needed(name)
    found, recorded = gains(peer.build(100, SHAPE)), RECORD[name]["gains, 100 layers"]
    assert found == pytest.approx(recorded, rel=0.25)  # it does not depend on the width; copies are one draw
    assert at_initialisation(peer, 2, SHAPE)["first over last gradient"] > 0
    assert of_a_misspelt_option(peer).split(":")[0] == RECORD[name]["deep_norm=True"].split(":")[0]


def test_the_record_says_what_the_readme_says_of_each() -> None:
    def at_1000(name: str) -> Any:
        return RECORD[name]["at initialisation"]["1000"]

    assert max(RECORD["deepnet_edu"]["off by, 12 layers"].values()) == 0
    for name, right in RIGHT.items():
        assert (max(RECORD[name]["off by, 12 layers"].values()) < 1e-6) is right
    assert RECORD["deepnet_edu"]["gains, 100 layers"] == pytest.approx(
        {"scaled by beta": 800**-0.25, "query and key": 1}, rel=0.01
    )
    assert all(one["gains, 100 layers"]["query and key"] < 0.6 for name, one in RECORD.items() if name in PEERS)
    assert at_1000("labml-nn") == {"first over last gradient": 0, "token similarity": 1}
    assert at_1000("x-transformers")["token similarity"] > 0.4
    assert at_1000("deepnet_edu")["token similarity"] < 0.01

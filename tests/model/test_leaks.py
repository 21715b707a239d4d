"""Who may see what: the future, padding and a cache's tokens; and that each of these tests catches a leak."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from deepnet_edu.model import LanguageModel, Model, ModelConfig, Translator, build_model
from deepnet_edu.model.attention import Cache, Context, MultiHeadAttention

SIZES: dict[str, Any] = {"d_model": 16, "n_heads": 2, "d_ff": 32, "vocab_size": 11, "max_length": 12}
LM = ModelConfig("decoder", "lm", 2, **SIZES)
MT = ModelConfig("encoder_decoder", "translation", 2, 2, **SIZES)
LEFT, RIGHT = torch.tensor([[True, True, *[False] * 4]]), torch.tensor([[*[False] * 4, True, True]])


def answers(model: Model, tokens: Tensor, source: Tensor, padding: Tensor | None, cache: Cache | None = None) -> Tensor:
    """Logits at each token: of a language model with ``padding`` of them, of a translator with that of the source."""
    if isinstance(model, Translator):
        return model.decode(tokens, model.encode(source, padding), memory_padding=padding, cache=cache)
    assert isinstance(model, LanguageModel)
    return model(tokens, padding if padding is None else padding[:, : tokens.shape[1]], cache)


def other(tokens: Tensor, where: Tensor | slice) -> Tensor:
    """Another token there."""
    changed = tokens.clone()
    changed[:, where] = (changed[:, where] + 1) % SIZES["vocab_size"]
    return changed


def sees_the_future(model: Model) -> None:
    """Fails where a token's output changes with the token after it."""
    tokens, source = torch.randint(11, (1, 6)), torch.randint(11, (1, 6))
    for padding in (None, LEFT if isinstance(model, LanguageModel) else RIGHT):
        for t in range(2, 5):
            changed = answers(model, other(tokens, slice(t + 1, None)), source, padding)
            torch.testing.assert_close(changed[:, 2 : t + 1], answers(model, tokens, source, padding)[:, 2 : t + 1])


def sees_the_future_in_pieces(model: Model) -> None:
    """Fails where answers that are read piece by piece, with a cache, are others than those read at once."""
    tokens, source = torch.randint(11, (1, 6)), torch.randint(11, (1, 6))
    for sizes in ([3, 3], [1, 4, 1], [1] * 6):
        cache = Cache()
        found = torch.cat([answers(model, part, source, None, cache) for part in tokens.split(sizes, dim=1)], dim=1)
        torch.testing.assert_close(found, answers(model, tokens, source, None))


def sees_padding(model: Model) -> None:
    """Fails where an output changes with what is in padding, of the source or of the tokens themselves."""
    tokens, source = torch.randint(11, (1, 6)), torch.randint(11, (1, 6))
    for padding in (LEFT, RIGHT) if isinstance(model, Translator) else (LEFT,):
        texts = source, other(source, padding[0])
        reads = isinstance(model, LanguageModel)
        one, another = (answers(model, text if reads else tokens, text, padding) for text in texts)
        torch.testing.assert_close(one[:, 2:], another[:, 2:])


PROBES = {"future": sees_the_future, "pieces": sees_the_future_in_pieces, "padding": sees_padding}
MODELS = pytest.mark.parametrize("config", [LM, MT], ids=["lm", "translation"])


@pytest.mark.usefixtures("both_paths", "double")
@pytest.mark.parametrize("position", ["learned", "rotary"])
@pytest.mark.parametrize("probe", PROBES)
@MODELS
def test_nothing_leaks(config: ModelConfig, probe: str, position: Any) -> None:
    PROBES[probe](build_model(replace(config, position=position)))


def shifted(mask: Tensor) -> Tensor:
    """A causal mask, True where a token may be seen, that shows one token more."""
    return F.pad(mask, (1, 0), value=True)[..., :-1]


def mask_later_by_one(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, is_causal: bool, **rest: Any) -> Any:
    if is_causal:
        attn_mask = shifted(torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril())
    return ATTEND(q, k, v, attn_mask=attn_mask, **rest)


def mask_of_a_cache_later_by_one(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, **rest: Any) -> Any:
    if attn_mask is not None and 1 < attn_mask.shape[-2] < k.shape[2]:
        attn_mask = shifted(attn_mask)
    return ATTEND(q, k, v, attn_mask=attn_mask, **rest)


def no_mask_with_a_cache(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None, **rest: Any) -> Any:
    if attn_mask is not None and attn_mask.shape[-2] < k.shape[2]:
        attn_mask = None
    return ATTEND(q, k, v, attn_mask=attn_mask, **rest)


def source_padding_forgotten(self: MultiHeadAttention, x: Tensor, context: Context) -> Tensor:
    return FORWARD(self, x, replace(context, memory_padding=None))


def padding_forgotten(self: MultiHeadAttention, x: Tensor, context: Context) -> Tensor:
    return FORWARD(self, x, replace(context, padding=None))


ATTEND, FORWARD = F.scaled_dot_product_attention, MultiHeadAttention.forward
#: What is planted, the probe that must catch it, and the models where there is such a thing.
PLANTS: dict[str, tuple[Any, str, list[ModelConfig]]] = {
    "mask later by one": (mask_later_by_one, "future", [LM, MT]),
    "mask of a cache later by one": (mask_of_a_cache_later_by_one, "pieces", [LM, MT]),
    "no mask with a cache": (no_mask_with_a_cache, "pieces", [LM, MT]),
    "padding of the source forgotten": (source_padding_forgotten, "padding", [MT]),
    "padding forgotten": (padding_forgotten, "padding", [LM, MT]),
}


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize(("plant", "config"), [(name, one) for name, (_, _, many) in PLANTS.items() for one in many])
def test_a_planted_leak_is_caught(plant: str, config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    leaky, probe, _ = PLANTS[plant]
    model = build_model(config)
    model.use_path("plain")
    PROBES[probe](model)
    if leaky.__name__.endswith("forgotten"):
        monkeypatch.setattr(MultiHeadAttention, "forward", leaky)
    else:
        monkeypatch.setattr(F, "scaled_dot_product_attention", leaky)
    with pytest.raises(AssertionError, match="not close"):
        PROBES[probe](model)

"""What to run a model of another make on, where its author does not say."""

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from deepnet_edu.model import Model
from deepnet_edu.review.trace import observed, tensor_of
from deepnet_edu.review.views import Inputs, run_on

#: Sequences, and tokens of each; a decoder's have fewer, so that the two can be told apart.
SEQUENCES, TOKENS, FEWER = 4, 16, 12
#: Sizes of images that are tried where a model does not name its own.
IMAGE_SIZES = (224, 32)


def inputs_for(model: nn.Module) -> Inputs | None:
    """Random inputs that a model accepts: token ids, images or a stream, by its first module and what it calls them.

    None for models that :func:`review` has inputs for.

    Raises:
        ValueError: the model accepts none of them; the message has what it said to the first.
    """
    if isinstance(model, Model | nn.TransformerEncoder | nn.TransformerEncoderLayer):
        return None
    said = "it has no layer that tells what it reads"
    for i, candidate in enumerate(_candidates(model)):
        batch = _placed(candidate, next(model.parameters()))
        try:
            with observed(model), torch.no_grad():
                tensor_of(run_on(model, batch)(model))
        except Exception as error:  # anything may be raised by a model that is called wrongly
            said = f"{type(error).__name__}: {error}" if i == 0 else said
        else:
            return batch
    raise ValueError(f"How is this model run? Random token ids, images and vectors were tried ({said})")


def _placed(batch: Any, parameter: Tensor) -> Inputs:
    """Where the model is, and numbers in its precision."""
    if isinstance(batch, dict):
        return {name: _placed(one, parameter) for name, one in batch.items()}
    if isinstance(batch, tuple):
        return tuple(_placed(one, parameter) for one in batch)
    return batch.to(parameter if batch.is_floating_point() else parameter.device)


def _candidates(model: nn.Module) -> Iterator[Inputs]:
    if hasattr(model, "main_input_name") and hasattr(model, "config"):
        yield from _by_keyword(model)
        return
    count = _required(model)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            for tokens in (TOKENS, 8, 4):
                yield tuple(_ids(module.num_embeddings, tokens) for _ in range(count))
            return
        if isinstance(module, nn.Conv2d):
            for size in _image_sizes(model):
                yield (_normal(SEQUENCES, module.in_channels, size, size),)
            return
        if (width := _width(module)) is not None:
            yield tuple(_normal(SEQUENCES, TOKENS, width) for _ in range(count))
            return


def _by_keyword(model: Any) -> Iterator[dict[str, Tensor]]:
    """For a model of Hugging Face's transformers, which says what it reads."""
    config, name = model.config, model.main_input_name
    if name == "pixel_values":
        for size in _image_sizes(model):
            yield {name: _normal(SEQUENCES, getattr(config, "num_channels", 3), size, size)}
        return
    longest = min(TOKENS, getattr(config, "max_position_embeddings", None) or TOKENS)
    batch = {name: _ids(config.vocab_size, longest)}
    if getattr(config, "is_encoder_decoder", False):
        batch["decoder_input_ids"] = _ids(config.vocab_size, min(FEWER, longest))
    yield batch


def _required(model: nn.Module) -> int:
    """Arguments that ``forward`` cannot do without."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = inspect.signature(model.forward).parameters.values()
    return max(1, sum(one.kind in kinds and one.default is inspect.Parameter.empty for one in known))


def _width(module: nn.Module) -> int | None:
    if isinstance(module, nn.Linear):
        return module.in_features
    if isinstance(module, nn.MultiheadAttention):
        return module.embed_dim
    return module.normalized_shape[-1] if isinstance(module, nn.LayerNorm | nn.RMSNorm) else None


def _image_sizes(model: nn.Module) -> list[int]:
    """What the model or a part of it says, else usual ones."""
    holders = [getattr(model, "config", None), *model.modules()]
    found = [getattr(one, name, None) for one in holders for name in ("image_size", "img_size")]
    sizes = [one[0] if isinstance(one, tuple | list) and one else one for one in found]
    return [size for size in dict.fromkeys(sizes) if isinstance(size, int)][:2] or list(IMAGE_SIZES)


def _ids(vocabulary: int, tokens: int) -> Tensor:
    """Token ids but the first three, which are often padding and the like."""
    low = min(3, vocabulary - 1)
    return torch.randint(low, vocabulary, (SEQUENCES, tokens), generator=torch.Generator().manual_seed(0))


def _normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))

"""A model from a Hugging Face config, at random weights."""

import importlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deepnet_edu.files import read_json
from deepnet_edu.messages import UserError, shown
from deepnet_edu.planning.limits import refuse_beyond

#: Bytes that a config may have.
MOST = 2**20
#: Bytes of weights, gradients and what a review keeps of a run, for each parameter.
BYTES = 12
SMALLER = "review a copy of the config with a smaller hidden_size; the number of layers is what α depends on"


def model_of_config(path: Path) -> tuple[nn.Module, Path]:
    """The model of a config.json, or of the folder that holds one, in float32 at random weights; and that file.

    No weights are read: a review judges how a model is drawn. Nothing is downloaded, and no code comes with a config.

    Raises:
        UserError: there is no such config, transformers does not know it or is not installed, or the model is too large
            for this machine.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        settings = read_json(file, most=MOST)
    except FileNotFoundError:
        raise UserError(f"{path} holds no config.json: give a folder with one, or file.py:NAME.") from None
    except ValueError as error:
        raise UserError(f"{file} cannot be read: {error}.") from None
    if not isinstance(settings, dict) or not isinstance(settings.get("model_type"), str):
        raise UserError(f"{file} is not a Hugging Face config: expected an object with a model_type, such as 'bert'.")
    if "auto_map" in settings:
        raise UserError(
            f"{file} names code of its own (auto_map), which is not run: write a function that builds the model, and "
            "give file.py:NAME."
        )
    if find_spec("transformers") is None:
        raise UserError(f"{file} needs transformers to be built: python -m pip install transformers")
    os.environ["HF_HUB_OFFLINE"] = "1"
    transformers: Any = importlib.import_module("transformers")
    # Of any precision that it was trained in, a sum is better told in float32.
    others = {name: value for name, value in settings.items() if name not in ("model_type", "dtype", "torch_dtype")}
    try:
        config = transformers.AutoConfig.for_model(settings["model_type"], **others)
        with torch.device("meta"):
            parameters = sum(one.numel() for one in transformers.AutoModel.from_config(config).parameters())
        refuse_beyond(f"{file}, of {parameters:,} parameters,", BYTES * parameters, 0, SMALLER)
        return transformers.AutoModel.from_config(config), file
    except UserError:
        raise
    except Exception as error:  # a config can be wrong in as many ways as there are models
        said = " ".join(str(error).split())
        raise UserError(
            f"transformers {transformers.__version__} builds no model of {file} ({type(error).__name__}: "
            f"{said[:300]}): check model_type {shown(settings['model_type'])} and its sizes."
        ) from None

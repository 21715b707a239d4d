"""Data: token tasks and real text that need no download, masked, translated, and what the Hugging Face hub has."""

from deepnet_edu.data.bpe import BytePairs
from deepnet_edu.data.hub import PRESETS, load_text, load_translation
from deepnet_edu.data.masking import MaskedText, mask_tokens
from deepnet_edu.data.packing import PackedText
from deepnet_edu.data.text import PythonDocs, python_documents
from deepnet_edu.data.tokens import PreviousToken, SourceMap, TokenMap
from deepnet_edu.data.translation import Pair, Translations

__all__ = [
    "PRESETS",
    "BytePairs",
    "MaskedText",
    "PackedText",
    "Pair",
    "PreviousToken",
    "PythonDocs",
    "SourceMap",
    "TokenMap",
    "Translations",
    "load_text",
    "load_translation",
    "mask_tokens",
    "python_documents",
]

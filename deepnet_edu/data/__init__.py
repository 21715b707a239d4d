"""Data: token tasks, text, translations and images that need no download, and what the Hugging Face hub has."""

from deepnet_edu.data.bpe import BytePairs
from deepnet_edu.data.documents import king_james, python_topics, shakespeare
from deepnet_edu.data.hub import PRESETS, load_images, load_text, load_translation
from deepnet_edu.data.images import Images, digits
from deepnet_edu.data.masking import MaskedText, mask_tokens
from deepnet_edu.data.multilingual import Multilingual, multilingual
from deepnet_edu.data.packing import PackedText
from deepnet_edu.data.parts import Parts, leaks, normal, split, split_documents
from deepnet_edu.data.placeholders import kept, one_word, protect, restore
from deepnet_edu.data.scores import Scores, compare
from deepnet_edu.data.sword import verse_pairs
from deepnet_edu.data.text import PythonDocs, python_documents
from deepnet_edu.data.tokens import PreviousToken, TokenMap
from deepnet_edu.data.translate import translate
from deepnet_edu.data.translation import Pair, Translations
from deepnet_edu.data.yardsticks import compressed, copied, count_models, entropies, most_similar

__all__ = [
    "PRESETS",
    "BytePairs",
    "Images",
    "MaskedText",
    "Multilingual",
    "PackedText",
    "Pair",
    "Parts",
    "PreviousToken",
    "PythonDocs",
    "Scores",
    "TokenMap",
    "Translations",
    "compare",
    "compressed",
    "copied",
    "count_models",
    "digits",
    "entropies",
    "kept",
    "king_james",
    "leaks",
    "load_images",
    "load_text",
    "load_translation",
    "mask_tokens",
    "most_similar",
    "multilingual",
    "normal",
    "one_word",
    "protect",
    "python_documents",
    "python_topics",
    "restore",
    "shakespeare",
    "split",
    "split_documents",
    "translate",
    "verse_pairs",
]

"""Data that need no download: two token tasks, and real text."""

from deepnet_edu.data.text import PythonDocs
from deepnet_edu.data.tokens import PreviousToken, TokenMap

__all__ = ["PreviousToken", "PythonDocs", "TokenMap"]

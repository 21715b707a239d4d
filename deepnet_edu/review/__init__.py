"""A checklist for anybody's DeepNorm."""

from deepnet_edu.review.checklist import Review, Row, review
from deepnet_edu.review.views import SubLayerView, find_sublayers

__all__ = ["Review", "Row", "SubLayerView", "find_sublayers", "review"]

"""A checklist for anybody's DeepNorm."""

from deepnet_edu.review.checklist import Review, Unseen, find_sublayers, review
from deepnet_edu.review.rows import Row
from deepnet_edu.review.views import SubLayerView

__all__ = ["Review", "Row", "SubLayerView", "Unseen", "find_sublayers", "review"]

"""Stage 2, recommendation prompt tuning."""

from lavic.tasks.recommendation.data import RecommendationData
from lavic.tasks.recommendation.task import Recommendation

__all__ = ["Recommendation", "RecommendationData"]

"""Django's admin looks for pages here."""

from .subjects.admin import PairwiseSubjectAdmin

__all__ = ["PairwiseSubjectAdmin"]

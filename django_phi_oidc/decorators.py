"""Decorators for a host project's views."""

from .access.decorators import phi_access, require_assurance
from .sessions.decorators import passive

__all__ = ["passive", "phi_access", "require_assurance"]

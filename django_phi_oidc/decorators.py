"""Decorators for a host project's views."""

from .sessions.decorators import passive

__all__ = ["passive"]

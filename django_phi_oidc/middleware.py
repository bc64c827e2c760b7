"""Django takes middleware by name from here."""

from .sessions.middleware import RevocationMiddleware

__all__ = ["RevocationMiddleware"]

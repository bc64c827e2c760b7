"""Django takes middleware by name from here."""

from .leak_guard.middleware import LeakageGuardMiddleware
from .sessions.middleware import RevocationMiddleware

__all__ = ["LeakageGuardMiddleware", "RevocationMiddleware"]

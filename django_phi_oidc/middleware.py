"""Django takes middleware by name from here."""

from .sessions.middleware import RevocationMiddleware
from .watch.middleware import LeakageGuardMiddleware

__all__ = ["LeakageGuardMiddleware", "RevocationMiddleware"]

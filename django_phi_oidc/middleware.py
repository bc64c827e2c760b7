"""For MIDDLEWARE."""

# ruff: noqa: PLC0414 -- explicit re-exports
from .leak_guard.middleware import LeakageGuardMiddleware as LeakageGuardMiddleware
from .sessions.middleware import RevocationMiddleware as RevocationMiddleware

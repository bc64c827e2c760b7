"""For AUTHENTICATION_BACKENDS."""

from .login.backend import BreakGlassBackend, OIDCAuthenticationBackend

__all__ = ["BreakGlassBackend", "OIDCAuthenticationBackend"]

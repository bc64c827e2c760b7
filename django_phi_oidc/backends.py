"""For AUTHENTICATION_BACKENDS."""

from .login.backend import OIDCAuthenticationBackend

__all__ = ["OIDCAuthenticationBackend"]

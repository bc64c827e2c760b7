"""For AUTHENTICATION_BACKENDS."""

# ruff: noqa: PLC0414 -- explicit re-exports
from .login.backend import OIDCAuthenticationBackend as OIDCAuthenticationBackend

"""Decorators for views of a host project."""

# ruff: noqa: PLC0414 -- explicit re-exports
from .access.decorators import phi_access as phi_access
from .access.decorators import require_assurance as require_assurance
from .access.enforcement import is_guarded as is_guarded
from .sessions.decorators import passive as passive

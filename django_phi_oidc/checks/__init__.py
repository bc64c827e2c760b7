"""System checks, a module for each part of the settings."""

from . import apis, audit_exports, core, emergency, monitoring, roles

__all__ = ["apis", "audit_exports", "core", "emergency", "monitoring", "roles"]

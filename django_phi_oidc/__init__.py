"""OpenID Connect sign-in for portals that hold protected health information."""

__version__ = "0.1.0"

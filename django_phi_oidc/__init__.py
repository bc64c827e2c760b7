"""OpenID Connect sign-in for healthcare portals, with an eye on protected health information."""

__version__ = "0.1.0"

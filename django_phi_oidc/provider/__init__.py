"""Providers as the project declared them, their metadata and keys, and the way to them."""

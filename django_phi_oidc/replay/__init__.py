"""Replay protection: an identifier that was used once is refused afterwards, on every server."""

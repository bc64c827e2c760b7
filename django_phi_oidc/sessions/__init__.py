"""OIDC sessions: timeouts, logout, and the revocation of their tokens.

`access_tokens.get_access_token(session)` returns a valid token for calls to a protected API.
"""

"""The public keys. Spec: RFC 7517 5, OIDC Core 10.1.1."""

from .messages import Reply, Request
from .state import State


def respond(state: State, request: Request) -> Reply:
    """Return the key set, the keys that sign now first."""
    keys = [key.public_jwk() for key in state.published]
    return Reply(headers={"Cache-Control": "public, max-age=300"}, json={"keys": keys})

"""What a client gets to call a person. Spec: OIDC Core 8."""

import base64
import hashlib
import hmac

from .registrations import Account, Client


def subject_of(account: Account, client: Client, *, salt: bytes, pairwise: bool = True) -> str:
    """Return the `sub` of account for the client's sector, or one for all sectors where subjects are public.

    Two sectors can't be joined without the salt, and the account can't be read back. Spec: OIDC Core 8.1.
    """
    return _digest(salt, "pairwise" if pairwise else "public", client.sector() if pairwise else "", account.username)


def session_id_of(session_id: str, client: Client, *, salt: bytes) -> str:
    """Return the `sid` of a session at the provider, a different one for each client. Spec: OIDC Back-Channel 2.1."""
    return _digest(salt, "sid", client.client_id, session_id)


def _digest(salt: bytes, *parts: str) -> str:
    # Lengths stand before the parts: no two lists of parts have the same bytes.
    message = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (part.encode() for part in parts))
    return base64.urlsafe_b64encode(hmac.digest(salt, message, hashlib.sha256)).rstrip(b"=").decode("ascii")

"""RP-initiated logout at the end-session endpoint of the provider (R9). Spec: OIDC RP-Initiated
Logout 1.0.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any
from urllib.parse import urlsplit

from ..config.providers import IDTokenHint
from ..errors import IDTokenError
from ..http.transport import add_query
from .jose import parse_compact_jws

MAX_HINT_LENGTH = 4096
"""Characters of an ID Token in a URL. Servers and browsers refuse longer URLs."""
_NETLOC_PATTERN = re.compile(r"[A-Za-z0-9.:\[\]-]+")


def build_end_session_url(endpoint: str, parameters: Mapping[str, str]) -> str:
    """Return the URL to redirect to. The endpoint's own query is kept."""
    return add_query(endpoint, parameters)


def build_hint_parameters(
    id_token: str,
    *,
    claims: Mapping[str, Any],
    issuer: str,
    policy: IDTokenHint,
    in_url: bool,
    protocol_claims: Collection[str],
) -> dict[str, str]:
    """Return the hint that identifies the session: `id_token_hint`, or `logout_hint` with the
    `sid`, or nothing.

    id_token: of the ended session, or empty. It is only sent to its issuer, in a URL only if it is
    short, and with the policy `minimal` only if it has no claims other than protocol_claims: the
    policy may have been `always` when the token was stored. claims: `iss` and `sid` of the
    session's ID Token. The `sid` identifies the provider's session and contains no personal data.

    NOT checked: the signature, which was verified when the token was received. Spec: RP-Initiated
    Logout 2.
    """
    if claims.get("iss") != issuer:
        return {}
    fits = id_token and (not in_url or len(id_token) <= MAX_HINT_LENGTH)
    if fits and (
        policy == "always" or (policy == "minimal" and _has_only(protocol_claims, id_token))
    ):
        return {"id_token_hint": id_token}
    sid = claims.get("sid")
    if sid and isinstance(sid, str):
        return {"logout_hint": sid}
    return {}


def _has_only(protocol_claims: Collection[str], id_token: str) -> bool:
    try:
        return all(name in protocol_claims for name in parse_compact_jws(id_token).payload)
    except IDTokenError:
        return False


def parse_url_origin(url: str) -> str:
    """Return the origin of an https or http URL, or an empty string if it is not safe to use in a
    header.
    """
    parts = urlsplit(url)
    if _NETLOC_PATTERN.fullmatch(parts.netloc):
        return f"{parts.scheme}://{parts.netloc}"
    return ""

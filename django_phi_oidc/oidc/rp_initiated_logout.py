"""R9: the browser is sent to the OP's end-session endpoint. Spec: OIDC RP-Initiated Logout 1.0."""

import re
from collections.abc import Collection, Mapping
from urllib.parse import quote, urlencode, urlsplit

from ..errors import TokenMalformed
from .jose import parse_compact_jws

MAX_HINT_LENGTH = 4096
"""Characters of an ID Token in a URL. A longer one would make a URL that servers and browsers refuse."""
_NETLOC_PATTERN = re.compile(r"[A-Za-z0-9.:\[\]-]+")


def build_end_session_url(endpoint: str, parameters: Mapping[str, str]) -> str:
    """Return where the browser goes, a query of the endpoint's own kept."""
    separator = "" if endpoint.endswith(("?", "&")) else "&" if "?" in endpoint else "?"
    return f"{endpoint}{separator}{urlencode(parameters, quote_via=quote)}"


def build_hint_parameters(
    id_token: str, *, issuer: str, in_url: bool, protocol_claims: Collection[str]
) -> dict[str, str]:
    """Return what tells the OP whom it signs out: `id_token_hint`, or `logout_hint` with the `sid`, or nothing.

    id_token: empty, or that of a session which has ended. It goes to its own issuer alone; into a URL only when it is
    short and bears no claim but protocol_claims. The `sid` is the OP's name for its session and says nothing else.

    NOT checked: the signature; it was verified when the token came. Spec: RP-Initiated Logout 2.
    """
    try:
        claims = parse_compact_jws(id_token).payload
    except TokenMalformed:
        return {}
    if claims.get("iss") != issuer:
        return {}
    if not in_url or (len(id_token) <= MAX_HINT_LENGTH and all(name in protocol_claims for name in claims)):
        return {"id_token_hint": id_token}
    sid = claims.get("sid")
    return {"logout_hint": sid} if sid and isinstance(sid, str) else {}


def parse_url_origin(url: str) -> str:
    """Return the origin of an https or http URL, or nothing when it can't stand in a header as it is."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}" if _NETLOC_PATTERN.fullmatch(parts.netloc) else ""

"""R9: the browser is sent to the OP's end-session endpoint. Spec: OIDC RP-Initiated Logout 1.0."""

from collections.abc import Collection
from urllib.parse import quote, urlencode

from ..errors import TokenMalformed
from .jose import parse_compact_jws
from .metadata import ProviderMetadata

LONGEST_HINT = 4096
"""Characters. A longer one would make a URL that servers and browsers refuse."""


def build_end_session_url(
    *, metadata: ProviderMetadata, client_id: str, post_logout_redirect_uri: str, state: str, id_token_hint: str
) -> str:
    """Return where the browser goes, a query of the endpoint's own kept; empty when the OP has no such endpoint.

    id_token_hint: empty, or an ID Token that may_be_hint() and whose session has ended.

    Spec: RP-Initiated Logout 2.
    """
    endpoint = metadata.end_session_endpoint
    if not endpoint:
        return ""
    parameters = {
        "client_id": client_id,
        "post_logout_redirect_uri": post_logout_redirect_uri,
        "state": state,
    }
    if id_token_hint:
        parameters["id_token_hint"] = id_token_hint
    separator = "" if endpoint.endswith(("?", "&")) else "&" if "?" in endpoint else "?"
    return f"{endpoint}{separator}{urlencode(parameters, quote_via=quote, safe='')}"


def may_be_hint(id_token: str, *, protocol_claims: Collection[str]) -> bool:
    """Say whether id_token may stand in a URL: it is short, and bears no claim but the protocol's own.

    NOT checked: the signature; it was verified when the token came.
    """
    if len(id_token) > LONGEST_HINT:
        return False
    try:
        claims = parse_compact_jws(id_token).payload
    except TokenMalformed:
        return False
    return all(name in protocol_claims for name in claims)

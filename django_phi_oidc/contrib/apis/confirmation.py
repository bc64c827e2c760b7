"""Proof that the sender of an access token has the key that the token is bound to.

Spec: RFC 7800 3.1, RFC 8705 3.1, RFC 9449 6.
"""

import re
from collections.abc import Mapping
from typing import Any

from ..common.api_errors import AccessTokenInvalid

CONFIRMATION_METHODS = frozenset({"x5t#S256", "jkt"})
"""Members of `cnf` whose proof can be verified: a TLS client certificate, or a DPoP proof. Each
value is a SHA-256 thumbprint.
"""
_THUMBPRINT_PATTERN = re.compile(r"[A-Za-z0-9_-]{43}")

Confirmation = tuple[tuple[str, str], ...]
"""The members of `cnf`: method and thumbprint of the key. Empty for a bearer token."""


def parse_confirmation(claims: Mapping[str, Any]) -> Confirmation:
    """`cnf_unsupported`: cnf, if present, names at least one key, and each by a method that can be
    verified.

    An unknown member is refused, because it may restrict the token. Spec: RFC 7800 3.1.
    """
    if "cnf" not in claims:
        return ()
    members = claims["cnf"]
    if not isinstance(members, dict) or not members or not CONFIRMATION_METHODS.issuperset(members):
        raise AccessTokenInvalid("cnf_unsupported")
    for thumbprint in members.values():
        if not isinstance(thumbprint, str) or not _THUMBPRINT_PATTERN.fullmatch(thumbprint):
            raise AccessTokenInvalid("cnf_unsupported")
    return tuple(members.items())


def validate_confirmation(confirmation: Confirmation, *, proofs: Mapping[str, str]) -> None:
    """`cnf_mismatch`: the sender of the request has proven possession of each key that the token is
    bound to.

    proofs: the thumbprint of the proven key by method. Spec: RFC 8705 3; RFC 9449 7.1, 7.2.
    """
    if any(proofs.get(method) != thumbprint for method, thumbprint in confirmation):
        raise AccessTokenInvalid("cnf_mismatch")

"""The e-mail address that the provider has verified. No Django."""

from collections.abc import Mapping
from typing import Any

from ...claims.minimization import is_empty

VERIFIED_EMAIL_CLAIMS = ("email", "email_verified")
"""Requested while `link_verified_email` is in force, and neither kept nor reported unless they are
declared.
"""


def find_verified_email(*sources: Mapping[str, Any]) -> str:
    """Return the e-mail address that the provider has verified; empty if there is none, or the
    sources disagree.

    sources: ID Token and UserInfo, not merged: the statement of one about its address must not
    verify the address of the other. `email_verified` must be the JSON boolean true: a text is not
    accepted, because "false" is one, too.
    Spec: OIDC Core 5.1.
    """
    addresses = []
    for source in sources:
        if not is_empty(source.get("email")):
            addresses.append(source["email"])
    statements = []
    for source in sources:
        if not is_empty(source.get("email_verified")):
            statements.append(source["email_verified"])
    verified = []
    for source in sources:
        if source.get("email") in addresses and source.get("email_verified"):
            verified.append(source["email"])
    is_agreed = all(address == addresses[0] for address in addresses) and all(
        value is True for value in statements
    )
    if verified and is_agreed and isinstance(verified[0], str):
        return verified[0]
    return ""

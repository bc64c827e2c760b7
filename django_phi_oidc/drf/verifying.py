"""From an access token to the account of the person on whose behalf it is used; nobody is made, and nothing written."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.contrib.auth.base_user import AbstractBaseUser
from django.views.decorators.debug import sensitive_variables

from ..api_rules import APIDeclaration
from ..declarations import ProviderDeclaration
from ..errors import AccessTokenInvalid, KeyNotFound, NotProvisioned, UserInactive
from ..keyring import Key
from ..oidc.access_token import AccessToken, Addressee, verify_access_token
from ..provider.introspecting import introspect
from ..provider.registry import get_provider
from ..subjects.linking import find_linked

DEADLINE = 2.0
"""Seconds for each call to the OP: somebody waits for the API meanwhile."""


def known(apis: Mapping[str, APIDeclaration], providers: Mapping[str, ProviderDeclaration]) -> list[Addressee]:
    """Return the declared APIs with their providers; one without is nobody's (E026)."""
    return [Addressee(api, providers[name]) for name, api in apis.items() if name in providers]


@sensitive_variables("token")
def verify(token: str, *, meant: Addressee, now: datetime) -> AccessToken:
    """Return what the OP says of a token that is good for this API now: by its signature, or when it is asked.

    Raises: AccessTokenInvalid; TransportError, MetadataError, IntrospectionFailed, when nobody can say.
    Spec: RFC 9068 4; RFC 7662 2.
    """
    provider = get_provider(meant.provider.name)
    if meant.api.method == "introspection":
        return introspect(token, meant=meant, provider=provider, now=now, deadline=DEADLINE)
    try:
        return verify_access_token(token, keys=provider.keys(deadline=DEADLINE), meant=meant, now=now)
    except KeyNotFound as fault:
        # The OP's key may be newer than what we have, as long as it was not asked just now.
        if not fault.is_certain:
            raise
        raise AccessTokenInvalid(fault.code) from fault


def find_user(token: AccessToken, *, keys: Sequence[Key]) -> AbstractBaseUser:
    """Return the active account that the person of the token is linked to, at one SELECT.

    keys: the subject keys.
    Raises: AccessTokenInvalid; SubjectKeyMissing, when nobody can be told to be unknown.
    """
    subject = find_linked(issuer=token.issuer, sub=token.sub, keys=keys)
    if subject is None:
        raise AccessTokenInvalid(NotProvisioned.code)
    if not subject.user.is_active:
        raise AccessTokenInvalid(UserInactive.code)
    return subject.user

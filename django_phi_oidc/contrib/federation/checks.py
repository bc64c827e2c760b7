"""System checks of OpenID Federation: the trust anchor's keys, the entity configuration, and its
trust marks.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import Tags
from django.urls import NoReverseMatch, Resolver404, resolve

from ... import conf
from ..._internal import clock
from ..._internal.check_messages import Messages, error, in_settings, register_check, warning
from ...config.certificates import CERTIFICATE_EXPIRY_WARNING
from ...config.providers import ProviderDeclaration
from ...errors import IDTokenError
from ...oidc.id_token import parse_numeric_date
from ...oidc.jose import parse_compact_jws
from ...oidc.jwks import parse_jwks
from .declaration import FederationDeclaration
from .entity_statement import build_entity_configuration_url
from .views import EntityConfigurationView, build_own_metadata

Member = tuple[ProviderDeclaration, FederationDeclaration]
_OF_ONE_PROVIDER = frozenset({"redirect_uris", "jwks"})
"""The entity configuration contains those of all."""


@register_check(Tags.security)
def check_federations(**kwargs: Any) -> Messages:
    """E131: trust_anchor_keys has no usable key; E132: two providers would publish different entity
    configurations.

    W131: a trust mark expires soon, or has expired.
    """
    members = _list_members()
    for provider, federation in members:
        subject = f"Provider {provider.name!r}:"
        path = f'PHI_OIDC["PROVIDERS"]["{provider.name}"]["federation"]'
        if not parse_jwks(federation.trust_anchor_keys.encode()).has_usable_key():
            hint = in_settings(
                f'{path}["trust_anchor_keys"] = Path("/etc/portal/trust-anchor.json")'
            )
            yield error(
                131, f"{subject} trust_anchor_keys has no key that can verify a signature.", hint
            )
        for expires_at in _iterate_expiries(federation):
            if expires_at - clock.now() < CERTIFICATE_EXPIRY_WARNING:
                text = f"{subject} a trust mark of the portal is valid until {expires_at:%Y-%m-%d}."
                yield warning(
                    131,
                    text,
                    f"Get a new one from its issuer, and set it in {path}['trust_marks'].",
                )
    for _, group in groupby(sorted(members, key=_get_client_id), key=_get_client_id):
        yield from _check_shared_entity([*group])


@register_check(Tags.urls)
def check_entity_configuration_urls(**kwargs: Any) -> Messages:
    """E133: no URL of the project leads to the entity configuration of the portal."""
    if not getattr(settings, "ROOT_URLCONF", None):
        return
    for client_id in dict.fromkeys(provider.client_id for provider, _ in _list_members()):
        path = urlsplit(build_entity_configuration_url(client_id)).path
        view = None
        with suppress(Resolver404):
            view = getattr(resolve(path).func, "view_class", None)
        if view is not EntityConfigurationView:
            text = f"{path} is not the entity configuration of the client_id {client_id}."
            hint = (
                f'In {settings.ROOT_URLCONF}: urlpatterns += [path("{path[1:]}", '
                "EntityConfigurationView.as_view())]"
            )
            yield error(133, text, hint)


def _check_shared_entity(members: Iterable[Member]) -> Messages:
    (first, federation), *others = members
    with suppress(NoReverseMatch):  # which E070 reports
        published = _describe_published(first, federation)
        for provider, other in others:
            if _describe_published(provider, other) != published:
                text = (
                    f"Providers {first.name!r} and {provider.name!r} have "
                    "one client_id, and differ in what its"
                )
                hint = "Declare the same for both, or another client_id for one."
                yield error(132, f"{text} entity configuration contains.", hint)


def _describe_published(
    provider: ProviderDeclaration, federation: FederationDeclaration
) -> tuple[Any, ...]:
    metadata = build_own_metadata(provider, federation, providers=[provider])
    shared = {}
    for name, value in metadata.items():
        if name not in _OF_ONE_PROVIDER:
            shared[name] = value
    return federation.keys, federation.authority_hints, federation.trust_marks, shared


def _iterate_expiries(federation: FederationDeclaration) -> Iterator[datetime]:
    for mark in federation.trust_marks:
        # A trust mark without exp does not expire, and another format is for its issuer to judge.
        with suppress(IDTokenError):
            claims = parse_compact_jws(dict(mark)["trust_mark"]).payload
            expires_at = parse_numeric_date(claims.get("exp"))
            if expires_at is not None:
                yield expires_at


def _list_members() -> list[Member]:
    members = []
    for provider in conf.providers().values():
        federation = provider.find_option(FederationDeclaration)
        if federation is not None:
            members.append((provider, federation))
    return members


def _get_client_id(member: Member) -> str:
    return member[0].client_id

"""The setting `PHI_OIDC`, read live. Declarations are parsed once, and again when `setting_changed` tells of it.

    PHI_OIDC = {
        "PROVIDERS": {"default": {"issuer": …, "client_id": …, "client_secret": …}},
        "CLAIMS": {"birthdate": {"purpose": "TREAT", "basis": "…", "retention": "session"}},
        "ENCRYPTION_KEYS": …, "SUBJECT_KEYS": …, "AUDIT_MAC_KEYS": …,
    }

Everything here raises ImproperlyConfigured, with the name of the option and never its value.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver

from .declarations import ClaimDeclaration, ProviderDeclaration, parse_claim, parse_provider
from .errors import DeclarationInvalid

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
KEY_RINGS = ("ENCRYPTION_KEYS", "SUBJECT_KEYS", "AUDIT_MAC_KEYS")
PAIRWISE_RING = "PAIRWISE_KEY"
"""Needed by pairwise_id alone."""
_ORIGIN = re.compile(r"https://(?:[A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
OPTIONS = (
    *("PROVIDERS", "CLAIMS", *KEY_RINGS, PAIRWISE_RING),
    *("TRUSTED_PROXIES", "SECTOR_ORIGINS", "REVOCATION_GIVE_UP_AFTER"),
    *("AUDIT_ORIGIN", "AUDIT_SIGNING_KEY", "AUDIT_PUBLIC_KEYS", "AUDIT_WITNESS_FILE", "RESOURCE_IDS", "SINKS"),
)


def option(name: str, default: Any = None) -> Any:
    """Return PHI_OIDC[name] as it stands now."""
    declared = getattr(settings, "PHI_OIDC", {})
    if not isinstance(declared, Mapping):
        raise ImproperlyConfigured("PHI_OIDC must be a dictionary.")
    return declared.get(name, default)


@lru_cache(maxsize=1)
def providers() -> Mapping[str, ProviderDeclaration]:
    """Return the declared providers by name; the first is the default one."""
    return _parsed("PROVIDERS", parse_provider)


@lru_cache(maxsize=1)
def claims() -> Mapping[str, ClaimDeclaration]:
    """Return the declared claims by name."""
    return _parsed("CLAIMS", parse_claim)


@lru_cache(maxsize=1)
def trusted_proxies() -> tuple[Network, ...]:
    """Return the networks whose forwarding headers are believed."""
    try:
        return tuple(ipaddress.ip_network(str(network)) for network in option("TRUSTED_PROXIES", ()))
    except ValueError as error:
        raise ImproperlyConfigured("PHI_OIDC['TRUSTED_PROXIES'] must be a list of networks.") from error


@lru_cache(maxsize=1)
def sector_origins() -> tuple[str, ...]:
    """Return the origins of this sector beside the one that a request comes to: the portal's further hosts."""
    origins = option("SECTOR_ORIGINS", ())
    if not isinstance(origins, list | tuple) or not all(isinstance(origin, str) for origin in origins):
        raise ImproperlyConfigured("PHI_OIDC['SECTOR_ORIGINS'] must be a list of origins.")
    if not all(_ORIGIN.fullmatch(origin) for origin in origins):
        raise ImproperlyConfigured("PHI_OIDC['SECTOR_ORIGINS']: an origin is https:// and a host alone.")
    return tuple(origins)


def revocation_give_up_after() -> timedelta:
    """Return how long a revocation is tried before it is abandoned, with an alert."""
    value = option("REVOCATION_GIVE_UP_AFTER", timedelta(days=3))
    if not isinstance(value, timedelta) or value <= timedelta(0):
        raise ImproperlyConfigured("PHI_OIDC['REVOCATION_GIVE_UP_AFTER'] must be a positive timedelta.")
    return value


def resource_ids() -> Literal["plain", "keyed"]:
    """Return how an event holds the id of the resource that it is about: as it is, or as a pseudonym."""
    value = option("RESOURCE_IDS", "plain")
    if value not in ("plain", "keyed"):
        raise ImproperlyConfigured("PHI_OIDC['RESOURCE_IDS'] must be 'plain' or 'keyed'.")
    return "keyed" if value == "keyed" else "plain"


def _parsed(name: str, parse: Callable[[str, Mapping[str, Any]], T]) -> Mapping[str, T]:
    declared = option(name, {})
    if not isinstance(declared, Mapping):
        raise ImproperlyConfigured(f"PHI_OIDC[{name!r}] must be a dictionary.")
    try:
        return {key: parse(key, raw) for key, raw in declared.items()}
    except DeclarationInvalid as error:
        raise ImproperlyConfigured(f"PHI_OIDC: {error}") from error


@receiver(setting_changed, dispatch_uid="django_phi_oidc.conf")
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        providers.cache_clear()
        claims.cache_clear()
        trusted_proxies.cache_clear()
        sector_origins.cache_clear()

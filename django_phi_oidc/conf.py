"""The setting `PHI_OIDC`. What each request needs is parsed once, and again when `setting_changed` tells of it.

    PHI_OIDC = {
        "PROVIDERS": {"default": {"issuer": …, "client_id": …, "client_secret": …}},
        "CLAIMS": {"birthdate": {"purpose": "TREAT", "basis": "…", "retention": "session"}},
        "ENCRYPTION_KEYS": …, "SUBJECT_KEYS": …, "AUDIT_MAC_KEYS": …,
    }

Everything here raises ImproperlyConfigured, with the name of the option and never its value.
"""

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from inspect import get_annotations
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from .config.apis import APIDeclaration, parse_api
from .config.emergency import EmergencyDeclaration, parse_emergency
from .config.options import Options
from .config.providers import ClaimDeclaration, ProviderDeclaration, parse_claim, parse_provider
from .config.roles import RoleRule, parse_role_rules
from .errors import DeclarationInvalid

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
KEY_RINGS = ("ENCRYPTION_KEYS", "SUBJECT_KEYS", "AUDIT_MAC_KEYS")
PAIRWISE_KEY_RING = "PAIRWISE_KEY"
"""Needed by pairwise_id alone."""
_ORIGIN_PATTERN = re.compile(r"https://(?:[A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
METRIC_EXPORTERS = ("prometheus", "opentelemetry")
"""What METRICS may name."""
MAX_ACTIVATION_LIFETIME = timedelta(days=366)
SESSION_ENDING_CHANGES = ("password", "roles")
"""What END_SESSIONS_ON may name."""
OPTION_NAMES = tuple(get_annotations(Options))


def get_option(name: str) -> Any:
    """Return PHI_OIDC[name] as it stands now; the default, where it does not. name: one of OPTIONS."""
    declared = getattr(settings, "PHI_OIDC", {})
    if type(declared) is not dict and not isinstance(declared, Mapping):
        raise ImproperlyConfigured("PHI_OIDC must be a dictionary.")
    return declared.get(name, getattr(Options, name))


@lru_cache(maxsize=1)
def providers() -> Mapping[str, ProviderDeclaration]:
    """Return the declared providers by name; the first is the default one."""
    return _parse_declarations("PROVIDERS", _parse_provider)


@lru_cache(maxsize=1)
def claims() -> Mapping[str, ClaimDeclaration]:
    """Return the declared claims by name."""
    return _parse_declarations("CLAIMS", parse_claim)


@lru_cache(maxsize=1)
def roles() -> Mapping[str, tuple[RoleRule, ...]]:
    """Return the rules from claims to roles, by the name of the provider."""
    return _parse_declarations("ROLES", parse_role_rules)


@lru_cache(maxsize=1)
def apis() -> Mapping[str, APIDeclaration]:
    """Return what access tokens are to the portal's own APIs, by the name of the provider."""
    return _parse_declarations("API", parse_api)


@lru_cache(maxsize=1)
def emergency() -> EmergencyDeclaration | None:
    """Return what may be opened in an emergency; None: nothing."""
    if (declared := get_option("EMERGENCY")) is None:
        return None
    try:
        return parse_emergency(declared)
    except DeclarationInvalid as error:
        raise ImproperlyConfigured(f"PHI_OIDC: {error}") from error


@lru_cache(maxsize=1)
def trusted_proxies() -> tuple[Network, ...]:
    """Return the networks whose forwarding headers are believed."""
    try:
        return tuple(ipaddress.ip_network(str(network)) for network in get_option("TRUSTED_PROXIES"))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured("PHI_OIDC['TRUSTED_PROXIES'] must be a list of networks.") from error


@lru_cache(maxsize=1)
def sector_origins() -> tuple[str, ...]:
    """Return the origins of this sector beside the one that a request comes to: the portal's further hosts."""
    origins = get_option("SECTOR_ORIGINS")
    if not isinstance(origins, list | tuple) or not all(isinstance(origin, str) for origin in origins):
        raise ImproperlyConfigured("PHI_OIDC['SECTOR_ORIGINS'] must be a list of origins.")
    if not all(_ORIGIN_PATTERN.fullmatch(origin) for origin in origins):
        raise ImproperlyConfigured("PHI_OIDC['SECTOR_ORIGINS']: an origin is https:// and a host alone.")
    return tuple(origins)


def revocation_give_up_after() -> timedelta:
    """Return how long a revocation is tried before it is abandoned, with an alert."""
    return _get_duration("REVOCATION_GIVE_UP_AFTER")


def activation_lifetime() -> timedelta:
    """Return for how long an activation code can be redeemed."""
    value = _get_duration("ACTIVATION_LIFETIME")
    if value > MAX_ACTIVATION_LIFETIME:
        raise ImproperlyConfigured(
            f"PHI_OIDC['ACTIVATION_LIFETIME'] must be {MAX_ACTIVATION_LIFETIME.days} days at most."
        )
    return value


@lru_cache(maxsize=1)
def idle_timeout() -> timedelta:
    """Return how long a session lives without a request that is an activity."""
    return _get_duration("IDLE_TIMEOUT")


@lru_cache(maxsize=1)
def absolute_timeout() -> timedelta:
    """Return how long a session lives at most."""
    return _get_duration("ABSOLUTE_TIMEOUT")


@lru_cache(maxsize=1)
def session_recheck() -> timedelta:
    """Return how long a request may rely on the last look at the session's row; zero: each one looks."""
    return _get_duration("SESSION_RECHECK", minimum=timedelta(0))


def end_sessions_on() -> frozenset[str]:
    """Return which changes of an account end its sessions: of END_SESSIONS_ON."""
    value = get_option("END_SESSIONS_ON")
    if not isinstance(value, list | tuple) or not set(value) <= set(SESSION_ENDING_CHANGES):
        raise ImproperlyConfigured(
            f"PHI_OIDC['END_SESSIONS_ON'] must be a list of: {', '.join(SESSION_ENDING_CHANGES)}."
        )
    return frozenset(value)


def should_clear_all_cookies() -> bool:
    """Say whether a logout asks the browser to drop all cookies of the registered domain, and not ours alone."""
    return _get_bool("CLEAR_ALL_COOKIES")


def should_keep_offline_tokens() -> bool:
    """Say whether a back-channel logout leaves tokens of `offline_access` alive."""
    return _get_bool("KEEP_OFFLINE")


def break_glass_account() -> str:
    """Return the name of the one account that may sign in with a password; empty when there is none."""
    value = get_option("BREAK_GLASS_ACCOUNT")
    if not isinstance(value, str):
        raise ImproperlyConfigured("PHI_OIDC['BREAK_GLASS_ACCOUNT'] must be a user name.")
    return value


def resource_ids() -> Literal["plain", "keyed"]:
    """Return how an event holds the id of the resource that it is about: as it is, or as a pseudonym."""
    value = get_option("RESOURCE_IDS")
    if value not in ("plain", "keyed"):
        raise ImproperlyConfigured("PHI_OIDC['RESOURCE_IDS'] must be 'plain' or 'keyed'.")
    return "keyed" if value == "keyed" else "plain"


def alert_recipients() -> tuple[str, ...]:
    """Return the addresses to which security alerts are mailed."""
    return _get_strings("ALERT_RECIPIENTS", "mail addresses", "@")


def anomaly_rules() -> tuple[str, ...]:
    """Return the dotted paths of the project's own rules."""
    return _get_strings("ANOMALY_RULES", "dotted paths", ".")


@lru_cache(maxsize=1)
def patient_resources() -> Callable[[Any], Iterable[str]] | None:
    """Return the project's function from a user to the resources that are theirs (`Type/id`); None: there is none."""
    path = get_option("PATIENT_RESOURCES")
    if path is None:
        return None
    try:
        function = import_string(path)
    except (ImportError, AttributeError) as error:
        raise ImproperlyConfigured(f"PHI_OIDC['PATIENT_RESOURCES'] can't be imported: {error}") from error
    if not callable(function):
        raise ImproperlyConfigured("PHI_OIDC['PATIENT_RESOURCES'] must be the dotted path of a function.")
    return function  # type: ignore[no-any-return]  # the project's own


def leakage_guard() -> Literal["report", "block"]:
    """Return what becomes of a response that leaks: it is told of, or withheld, too."""
    value = get_option("LEAKAGE_GUARD")
    if value not in ("report", "block"):
        raise ImproperlyConfigured("PHI_OIDC['LEAKAGE_GUARD'] must be 'report' or 'block'.")
    return "block" if value == "block" else "report"


def metrics() -> tuple[str, ...]:
    """Return where metrics go to: of METRICS."""
    value = get_option("METRICS")
    if not isinstance(value, list | tuple) or not set(value) <= set(METRIC_EXPORTERS):
        raise ImproperlyConfigured(f"PHI_OIDC['METRICS'] must be a list of: {', '.join(METRIC_EXPORTERS)}.")
    return tuple(dict.fromkeys(value))


def export_folder() -> Path | None:
    """Return where exports of many events wait for whoever asked for them; None: there are none."""
    value = get_option("EXPORT_FOLDER")
    if value is not None and not (isinstance(value, str | Path) and Path(value).is_absolute()):
        raise ImproperlyConfigured("PHI_OIDC['EXPORT_FOLDER'] must be the absolute path of a folder.")
    return None if value is None else Path(value)


def _get_duration(name: str, *, minimum: timedelta = timedelta.resolution) -> timedelta:
    value = get_option(name)
    if not isinstance(value, timedelta) or value < minimum:
        raise ImproperlyConfigured(f"PHI_OIDC[{name!r}] must be a {'positive ' if minimum else ''}timedelta.")
    return value


def _get_strings(name: str, item_description: str, required_substring: str) -> tuple[str, ...]:
    value = get_option(name)
    if not isinstance(value, list | tuple) or not all(
        isinstance(text, str) and required_substring in text for text in value
    ):
        raise ImproperlyConfigured(f"PHI_OIDC[{name!r}] must be a list of {item_description}.")
    return tuple(value)


def _get_bool(name: str) -> bool:
    value = get_option(name)
    if not isinstance(value, bool):
        raise ImproperlyConfigured(f"PHI_OIDC[{name!r}] must be True or False.")
    return value


def _parse_provider(name: str, raw: Any) -> ProviderDeclaration:
    """A label may be a lazy translation, which is no string before it is shown."""
    label = raw.get("label") if isinstance(raw, Mapping) else None
    if not isinstance(label, Promise):
        return parse_provider(name, raw)
    return replace(parse_provider(name, {**raw, "label": ""}), label=cast(str, label))


def _parse_declarations(name: str, parse_declaration: Callable[[str, Any], T]) -> Mapping[str, T]:
    declared = get_option(name)
    if not isinstance(declared, Mapping):
        raise ImproperlyConfigured(f"PHI_OIDC[{name!r}] must be a dictionary.")
    try:
        return {key: parse_declaration(key, raw) for key, raw in declared.items()}
    except DeclarationInvalid as error:
        raise ImproperlyConfigured(f"PHI_OIDC: {error}") from error


@receiver(setting_changed, dispatch_uid="django_phi_oidc.conf")
def _clear_caches(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        parsed = (providers, claims, roles, apis, emergency, trusted_proxies, sector_origins)
        for each in (*parsed, idle_timeout, absolute_timeout, session_recheck, patient_resources):
            each.cache_clear()

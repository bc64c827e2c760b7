"""The setting `PHI_OIDC`. Each option is parsed at its first use, and again after
`setting_changed`.

    PHI_OIDC = {
        "PROVIDERS": {"default": {"issuer": …, "client_id": …, "client_secret": …}},
        "CLAIMS": {"birthdate": {"purpose": "TREAT", "basis": "…", "retention": "session"}},
        "KEYS": {"encryption": …, "subject": …, "audit_mac": …},
    }

Every function raises SettingInvalid if its option is wrong. The message lists all mistakes of the
setting, by the names of the options and without their values. A mistake in another option does not
matter.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.dispatch import receiver
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from .audit.declaration import WitnessDeclaration
from .config import effective_options, options
from .config.claims import ClaimDeclaration
from .config.options import Network as Network  # noqa: PLC0414 -- the type of trusted_proxies()
from .config.providers import Label, ProviderDeclaration
from .config.roles import RoleRule
from .contrib.apis.declaration import APIDeclaration
from .contrib.emergency.declaration import EmergencyDeclaration
from .contrib.officer_admin.declaration import AdminAssuranceDeclaration
from .contrib.scim.declaration import SCIMDeclaration
from .contrib.siem.declaration import SinkDeclaration
from .errors import Code, DeclarationInvalid
from .project_settings import KEY_RINGS as KEY_RINGS  # noqa: PLC0414 -- read here by the rest of the package
from .project_settings import KEY_VARIABLES as KEY_VARIABLES  # noqa: PLC0414

PAIRWISE_KEY_RING = "pairwise"
"""Needed by pairwise_id only."""

Label.register(Promise)


class SettingInvalid(ImproperlyConfigured):
    """An option is wrong. The message names it, and all other mistakes of the setting, without
    values.
    """

    code = Code.DECLARATION_INVALID
    is_provider_fault = False


@lru_cache(maxsize=64)
def _read(option: str, member: str = "") -> Any:
    """Return the parsed option of PHI_OIDC, or one member of a group of options such as KEYS."""
    try:
        return options.parse_one(_get_declared(), option, member)
    except DeclarationInvalid as error:
        raise SettingInvalid("\n".join([*list_unknown_options(), *list_mistakes()])) from error


def list_unknown_options() -> list[str]:
    """Return a message for each top-level option that does not exist."""
    return [f"PHI_OIDC: {message}" for message in options.list_unknown(_get_declared())]


def list_mistakes() -> list[str]:
    """Return a message for each mistake in the known options, without values."""
    return [
        re.sub(r"^\w+", r"PHI_OIDC['\g<0>']", mistake)
        for mistake in options.list_mistakes(_get_declared())
    ]


def iter_effective_options() -> Iterator[tuple[str, Any]]:
    """Yield the path and the value of each option in effect, without KEYS and without secrets."""
    return effective_options.iter_effective_options(_get_declared())


get_key_source: Callable[[str], Any] = partial(_read, "KEYS")
"""Return the source of a key ring, of the signing key, of the public keys or of the retention
keys.
"""
providers: Callable[[], Mapping[str, ProviderDeclaration]] = partial(_read, "PROVIDERS")
"""Return the providers by name; the first is the default."""
claims: Callable[[], Mapping[str, ClaimDeclaration]] = partial(_read, "CLAIMS")
roles: Callable[[], Mapping[str, tuple[RoleRule, ...]]] = partial(_read, "ROLES")
"""Return the rules from claims to roles, by the name of the provider."""
apis: Callable[[], Mapping[str, APIDeclaration]] = partial(_read, "API")
"""Return which access tokens the portal's own APIs accept, by the name of the provider."""
trusted_proxies: Callable[[], tuple[Network, ...]] = partial(_read, "TRUSTED_PROXIES")
sector_origins: Callable[[], tuple[str, ...]] = partial(_read, "SECTOR_ORIGINS")
"""Return the origins of this sector in addition to that of the request."""
audit_origin: Callable[[], Any] = partial(_read, "AUDIT", "origin")
"""Return the declared name of the log; `audit.log.signing_keys` validates it."""
witness_file: Callable[[], str | Path | None] = partial(_read, "AUDIT", "witness_file")
resource_ids: Callable[[], Literal["plain", "keyed"]] = partial(_read, "AUDIT", "resource_ids")
sinks: Callable[[], Mapping[str, SinkDeclaration]] = partial(_read, "AUDIT", "sinks")
witnesses: Callable[[], Mapping[str, WitnessDeclaration]] = partial(_read, "AUDIT", "witnesses")
tiles: Callable[[], Path | str | None] = partial(_read, "AUDIT", "tiles")
archive_folder: Callable[[], Path | None] = partial(_read, "AUDIT", "archives")
export_folder: Callable[[], Path | None] = partial(_read, "AUDIT", "exports")
idle_timeout: Callable[[], timedelta] = partial(_read, "SESSIONS", "idle_timeout")
absolute_timeout: Callable[[], timedelta] = partial(_read, "SESSIONS", "absolute_timeout")
session_recheck: Callable[[], timedelta] = partial(_read, "SESSIONS", "recheck")
end_sessions_on: Callable[[], tuple[str, ...]] = partial(_read, "SESSIONS", "end_on")
max_parallel_sessions: Callable[[], int | None] = partial(_read, "SESSIONS", "max_parallel")
"""Return how many sessions a user may have at the same time; None: any number."""
revocation_give_up_after: Callable[[], timedelta] = partial(_read, "REVOCATION_GIVE_UP_AFTER")
operational_retention: Callable[[], timedelta] = partial(_read, "OPERATIONAL_RETENTION")
activation_lifetime: Callable[[], timedelta] = partial(_read, "ACTIVATION_LIFETIME")
should_clear_all_cookies: Callable[[], bool] = partial(_read, "CLEAR_ALL_COOKIES")
should_keep_offline_tokens: Callable[[], bool] = partial(_read, "KEEP_OFFLINE")
admin_assurance: Callable[[], AdminAssuranceDeclaration] = partial(_read, "ADMIN_ASSURANCE")
break_glass_accounts: Callable[[], tuple[str, ...]] = partial(_read, "BREAK_GLASS_ACCOUNTS")
"""Return the user names of the local accounts."""
security_contacts: Callable[[], tuple[str, ...]] = partial(_read, "SECURITY_CONTACTS")
anomaly_rules: Callable[[], tuple[str, ...]] = partial(_read, "ANOMALY_RULES")
"""Return the dotted paths of the project's own rules."""
leakage_guard: Callable[[], Literal["report", "block"]] = partial(_read, "LEAKAGE_GUARD")
metrics: Callable[[], tuple[str, ...]] = partial(_read, "METRICS")


def witness_quorum() -> int:
    """Return how many witnesses must have cosigned a checkpoint; 0 without witnesses."""
    declared: int | None = _read("AUDIT", "quorum")
    count = len(witnesses())

    if declared is None:
        if count:
            return count // 2 + 1
        return 0
    return declared


def scim() -> Mapping[str, SCIMDeclaration]:
    """Return how clients of a provider provision accounts, by its name; empty: SCIM is off."""
    return {
        name: provider.scim for name, provider in providers().items() if provider.scim is not None
    }


def has_signals() -> bool:
    """Return whether any provider sends security events."""
    return any(provider.signals is not None for provider in providers().values())


@lru_cache(maxsize=1)
def emergency() -> EmergencyDeclaration | None:
    """Return the rules of emergency access, with the addresses for its mails; None: it is
    disabled.
    """
    declared: EmergencyDeclaration | None = _read("EMERGENCY")
    if declared is None or declared.mail_to:
        return declared
    if not security_contacts():
        raise SettingInvalid("PHI_OIDC['EMERGENCY'] needs SECURITY_CONTACTS, or its own mail_to.")
    return replace(declared, mail_to=security_contacts())


@lru_cache(maxsize=1)
def patient_resources() -> Callable[[Any], Iterable[str]] | None:
    """Return the project's function from a user to the resources about the user (`Type/id`); None:
    there is none.
    """
    path = _read("PATIENT_RESOURCES")
    if path is None:
        return None
    return _import_function("PATIENT_RESOURCES", path)


@lru_cache(maxsize=1)
def person_label() -> Callable[[Any], Any]:
    """Return the function from a user to the name that the pages of the admin show."""
    path = _read("PERSON_LABEL")
    if path is None:
        return get_full_name
    return _import_function("PERSON_LABEL", path)


def get_full_name(user: Any) -> Any:
    """Return the full name, or the user name without one: the default of PERSON_LABEL."""
    # A custom user model may have no such method.
    full_name = getattr(user, "get_full_name", None)
    return (str(full_name()).strip() if full_name else "") or user.get_username()


@lru_cache(maxsize=1)
def account_notices() -> Callable[[Any], Any] | None:
    """Return the function from a user to the address for notices about the account; None: there are
    no notices.
    """
    declared = _read("ACCOUNT_NOTICES")
    if isinstance(declared, str):
        return _import_function("ACCOUNT_NOTICES", declared)

    if declared:
        return get_email_address
    return None


def get_email_address(user: Any) -> Any:
    """Return the address of the account, for notices: the default of ACCOUNT_NOTICES."""
    # A custom user model may have no such field.
    return getattr(user, user.get_email_field_name(), "")


def _import_function(option: str, path: str) -> Callable[[Any], Any]:
    try:
        function = import_string(path)
    except (ImportError, AttributeError) as error:
        raise SettingInvalid(f"PHI_OIDC[{option!r}] can't be imported: {error}") from error
    if not callable(function):
        raise SettingInvalid(f"PHI_OIDC[{option!r}] must be the dotted path of a function.")
    return function  # type: ignore[no-any-return]  # the project's own


def _get_declared() -> Mapping[str, Any]:
    declared = getattr(settings, "PHI_OIDC", {})
    if not isinstance(declared, Mapping):
        raise SettingInvalid("PHI_OIDC must be a dictionary.")
    return declared


@receiver(setting_changed, dispatch_uid="django_phi_oidc.conf")
def _clear_caches(*, setting: str, **kwargs: Any) -> None:
    if setting == "PHI_OIDC":
        for function in (_read, account_notices, emergency, patient_resources, person_label):
            function.cache_clear()

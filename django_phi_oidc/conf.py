"""The options of the setting `PHI_OIDC` that the core declares. An app has its own `conf.py`.

    PHI_OIDC = {
        "PROVIDERS": {"default": {"issuer": …, "client_id": …, "client_secret": …}},
        "CLAIMS": {"birthdate": {"purpose": "TREAT", "basis": "…", "retention": "session"}},
        "KEYS": {"encryption": …, "subject": …, "audit_mac": …},
    }

Every function raises `options.SettingInvalid` if its option is wrong.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from django.utils.functional import Promise

from .config.admin_assurance import AdminAssuranceDeclaration
from .config.claims import ClaimDeclaration
from .config.providers import Label, ProviderDeclaration
from .config.roles import RoleRule
from .contrib.apis.declaration import APIDeclaration
from .contrib.emergency.declaration import EmergencyDeclaration
from .contrib.scim.declaration import SCIMDeclaration
from .options import SettingInvalid, cache_option, import_function, read_option

Label.register(Promise)
providers: Callable[[], Mapping[str, ProviderDeclaration]] = partial(read_option, "PROVIDERS")
"""Return the providers by name; the first is the default."""
claims: Callable[[], Mapping[str, ClaimDeclaration]] = partial(read_option, "CLAIMS")
roles: Callable[[], Mapping[str, tuple[RoleRule, ...]]] = partial(read_option, "ROLES")
"""Return the rules from claims to roles, by the name of the provider."""
apis: Callable[[], Mapping[str, APIDeclaration]] = partial(read_option, "API")
"""Return which access tokens the portal's own APIs accept, by the name of the provider."""
sector_origins: Callable[[], tuple[str, ...]] = partial(read_option, "SECTOR_ORIGINS")
"""Return the origins of this sector in addition to that of the request."""
idle_timeout: Callable[[], timedelta] = partial(read_option, "SESSIONS", "idle_timeout")
absolute_timeout: Callable[[], timedelta] = partial(read_option, "SESSIONS", "absolute_timeout")
session_recheck: Callable[[], timedelta] = partial(read_option, "SESSIONS", "recheck")
end_sessions_on: Callable[[], tuple[str, ...]] = partial(read_option, "SESSIONS", "end_on")
max_parallel_sessions: Callable[[], int | None] = partial(read_option, "SESSIONS", "max_parallel")
"""Return how many sessions a user may have at the same time; None: any number."""
revocation_give_up_after: Callable[[], timedelta] = partial(read_option, "REVOCATION_GIVE_UP_AFTER")
operational_retention: Callable[[], timedelta] = partial(read_option, "OPERATIONAL_RETENTION")
activation_lifetime: Callable[[], timedelta] = partial(read_option, "ACTIVATION_LIFETIME")
should_clear_all_cookies: Callable[[], bool] = partial(read_option, "CLEAR_ALL_COOKIES")
should_keep_offline_tokens: Callable[[], bool] = partial(read_option, "KEEP_OFFLINE")
admin_assurance: Callable[[], AdminAssuranceDeclaration] = partial(read_option, "ADMIN_ASSURANCE")
break_glass_accounts: Callable[[], tuple[str, ...]] = partial(read_option, "BREAK_GLASS_ACCOUNTS")
"""Return the user names of the local accounts."""
security_contacts: Callable[[], tuple[str, ...]] = partial(read_option, "SECURITY_CONTACTS")
anomaly_rules: Callable[[], tuple[str, ...]] = partial(read_option, "ANOMALY_RULES")
"""Return the dotted paths of the project's own rules."""
leakage_guard: Callable[[], Literal["report", "block"]] = partial(read_option, "LEAKAGE_GUARD")
metrics: Callable[[], tuple[str, ...]] = partial(read_option, "METRICS")


def scim() -> Mapping[str, SCIMDeclaration]:
    """Return how clients of a provider provision accounts, by its name; empty: SCIM is off."""
    return {
        name: provider.scim for name, provider in providers().items() if provider.scim is not None
    }


def has_signals() -> bool:
    """Return whether any provider sends security events."""
    return any(provider.signals is not None for provider in providers().values())


@cache_option
def emergency() -> EmergencyDeclaration | None:
    """Return the rules of emergency access, with the addresses for its mails; None: it is
    disabled.
    """
    declared: EmergencyDeclaration | None = read_option("EMERGENCY")
    if declared is None or declared.mail_to:
        return declared
    if not security_contacts():
        raise SettingInvalid("PHI_OIDC['EMERGENCY'] needs SECURITY_CONTACTS, or its own mail_to.")
    return replace(declared, mail_to=security_contacts())


@cache_option
def patient_resources() -> Callable[[Any], Iterable[str]] | None:
    """Return the project's function from a user to the resources about the user (`Type/id`); None:
    there is none.
    """
    path = read_option("PATIENT_RESOURCES")
    if path is None:
        return None
    return import_function("PATIENT_RESOURCES", path)


@cache_option
def person_label() -> Callable[[Any], Any]:
    """Return the function from a user to the name that the pages of the admin show."""
    path = read_option("PERSON_LABEL")
    if path is None:
        return get_full_name
    return import_function("PERSON_LABEL", path)


def get_full_name(user: Any) -> Any:
    """Return the full name, or the user name without one: the default of PERSON_LABEL."""
    # A custom user model may have no such method.
    full_name = getattr(user, "get_full_name", None)
    return (str(full_name()).strip() if full_name else "") or user.get_username()


@cache_option
def account_notices() -> Callable[[Any], Any] | None:
    """Return the function from a user to the address for notices about the account; None: there are
    no notices.
    """
    declared = read_option("ACCOUNT_NOTICES")
    if isinstance(declared, str):
        return import_function("ACCOUNT_NOTICES", declared)

    if declared:
        return get_email_address
    return None


def get_email_address(user: Any) -> Any:
    """Return the address of the account, for notices: the default of ACCOUNT_NOTICES."""
    # A custom user model may have no such field.
    return getattr(user, user.get_email_field_name(), "")

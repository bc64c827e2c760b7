"""The options of the setting `PHI_OIDC` that the core declares. An app has its own `conf.py`.

    PHI_OIDC = {
        "PROVIDERS": {"default": {"issuer": …, "client_id": …, "client_secret": …}},
        "CLAIMS": {"birthdate": {"purpose": "TREAT", "basis": "…", "retention": "session"}},
        "KEYS": {"encryption": …, "subject": …, "audit_mac": …},
    }

Every function raises `options.SettingInvalid` if its option is wrong.
"""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Literal

from django.utils.functional import Promise

from .config.admin_assurance import AdminAssuranceDeclaration
from .config.claims import ClaimDeclaration
from .config.providers import Label, ProviderDeclaration
from .options import cache_option, import_function, read_option

Label.register(Promise)
providers: Callable[[], Mapping[str, ProviderDeclaration]] = partial(read_option, "PROVIDERS")
"""Return the providers by name; the first is the default."""
claims: Callable[[], Mapping[str, ClaimDeclaration]] = partial(read_option, "CLAIMS")
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
should_clear_all_cookies: Callable[[], bool] = partial(read_option, "CLEAR_ALL_COOKIES")
should_keep_offline_tokens: Callable[[], bool] = partial(read_option, "KEEP_OFFLINE")
admin_assurance: Callable[[], AdminAssuranceDeclaration] = partial(read_option, "ADMIN_ASSURANCE")
security_contacts: Callable[[], tuple[str, ...]] = partial(read_option, "SECURITY_CONTACTS")
leakage_guard: Callable[[], Literal["report", "block"]] = partial(read_option, "LEAKAGE_GUARD")


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
    if hasattr(user, "get_full_name"):
        full_name = str(user.get_full_name()).strip()
        if full_name:
            return full_name
    return user.get_username()

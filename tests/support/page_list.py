"""Every page of the app, from the URLconf of the project: a new page cannot be left out of the pictures."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.urls import URLPattern, URLResolver, get_resolver, reverse

PREFIXES = ("django_phi_oidc_", "phi_oidc_", "oidc_")
NOT_PAGES = {
    "admin:phi_oidc_invitations_activationcode_codes": "POST only",
    "admin:phi_oidc_invitations_activationcode_template": "a file",
    "admin:django_phi_oidc_pairwisesubject_template": "a file",
    "admin:phi_oidc_officer_admin_sessionendjob_continue": "POST only",
    "admin:phi_oidc_individual_rights_accountingcopy_change": "a file",
    "admin:phi_oidc_audit_auditcheckpoint_note": "a file",
    "admin:phi_oidc_audit_auditevent_proof": "a file",
    "admin:phi_oidc_audit_exports_trailjob_download": "POST only",
    "admin:phi_oidc_audit_exports_trailjob_export": "POST only",
    "admin:phi_oidc_audit_exports_trailjob_verify": "POST only",
    "oidc_activate": "only during a sign-in: tests/integration/example_project/test_page_accessibility.py",
    "oidc_authentication_init": "a redirect to the provider",
    "oidc_backchannel_logout": "for providers",
    "oidc_emergency_close": "POST only",
    "oidc_entity_configuration": "JSON",
    "oidc_frontchannel_logout": "for providers",
    "oidc_health": "JSON",
    "oidc_initiate_login": "a redirect to the sign-in",
    "oidc_jwks": "JSON",
    "oidc_logout": "POST only",
    "oidc_ssf_events": "for providers",
    "oidc_sector_identifier": "JSON",
    "oidc_session": "JSON",
    "oidc_signed_in": "a redirect after a sign-in",
    "oidc_step_up": "only during a step-up: tests/integration/example_project/test_page_accessibility.py",
}
"""URL names without a page for people, with the reason. A test fails for a name that is here and has a page."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A named URL."""

    name: str
    """With its namespace."""
    arguments: tuple[str, ...]


def list_places() -> list[Place]:
    """Return the named URLs of the app, and the index pages of the admin that it changes."""
    places: dict[str, Place] = {}
    for place in _walk(get_resolver(), ()):
        # A name may have a second pattern with the name of a provider.
        places.setdefault(place.name, place)
    return [places[name] for name in sorted(places)]


def _walk(resolver: URLResolver, namespaces: tuple[str, ...]) -> Iterator[Place]:
    for pattern in resolver.url_patterns:
        if isinstance(pattern, URLResolver):
            yield from _walk(pattern, (*namespaces, *filter(None, [pattern.namespace])))
        elif isinstance(pattern, URLPattern) and pattern.name and _is_included(pattern.name, namespaces):
            name = ":".join([*namespaces, pattern.name])
            yield Place(name=name, arguments=tuple(pattern.pattern.converters))


def _is_included(name: str, namespaces: tuple[str, ...]) -> bool:
    return name.startswith(PREFIXES) or (name == "index" and "admin" in namespaces)


def build_file_name(name: str) -> str:
    """Return the beginning of the names of the page's pictures."""
    return name.removeprefix("admin:").removeprefix("django_phi_oidc_")


def build_path(place: Place, *, keys: Mapping[str, Any], arguments: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the path of the page.

    keys: the key of a row by model name, for the pages that the admin makes. arguments: by URL name, for other pages.
    Raises: LookupError if neither has the arguments of this page.
    """
    # The label of an app has underscores, the name of a model has none.
    model = place.name.rpartition("_")[0].rpartition("_")[2]
    if place.name in arguments:
        return reverse(place.name, kwargs=dict(arguments[place.name]))
    if place.arguments and model not in keys:
        raise LookupError(f"The arguments {place.arguments} of {place.name} are unknown: add them.")
    return reverse(place.name, kwargs=dict.fromkeys(place.arguments, keys.get(model)))

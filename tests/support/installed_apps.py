"""INSTALLED_APPS of a project with the core and all its apps, or some of them."""

from collections.abc import Mapping

CORE_APPS = ("django_phi_oidc", "django_phi_oidc.audit")
CONTRIB_APPS = (
    "django_phi_oidc.contrib.administrators",
    "django_phi_oidc.contrib.adoption",
    "django_phi_oidc.contrib.apis",
    "django_phi_oidc.contrib.audit_exports",
    "django_phi_oidc.contrib.doctor",
    "django_phi_oidc.contrib.emergency",
    "django_phi_oidc.contrib.evidence",
    "django_phi_oidc.contrib.federation",
    "django_phi_oidc.contrib.foreign_sessions",
    "django_phi_oidc.contrib.individual_rights",
    "django_phi_oidc.contrib.invitations",
    "django_phi_oidc.contrib.key_rotation",
    "django_phi_oidc.contrib.legal_holds",
    "django_phi_oidc.contrib.local_accounts",
    "django_phi_oidc.contrib.monitoring",
    "django_phi_oidc.contrib.notices",
    "django_phi_oidc.contrib.officer_admin",
    "django_phi_oidc.contrib.retention_keys",
    "django_phi_oidc.contrib.role_mapping",
    "django_phi_oidc.contrib.scim",
    "django_phi_oidc.contrib.shared_signals",
    "django_phi_oidc.contrib.siem",
    "django_phi_oidc.contrib.subject_links",
    "django_phi_oidc.contrib.third_party_login",
)
"""Without `rest_framework` and `account_api`, which need a further package."""
ALL_APPS = (*CORE_APPS, *CONTRIB_APPS, "django_phi_oidc.testing")
VARIABLE = "PHI_TEST_APPS"


def select_apps(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the core and the apps that PHI_TEST_APPS names, separated by blanks; all apps without the variable."""
    if VARIABLE not in environment:
        return ALL_APPS
    return (*CORE_APPS, *environment[VARIABLE].split())

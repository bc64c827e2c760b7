"""The labels of the package's apps, which begin the names of their permissions and tables."""

from django.db.models import Q

CORE_LABEL = "django_phi_oidc"
_APP_PREFIX = "phi_oidc_"


def is_own_label(label: str) -> bool:
    """Return whether the label belongs to the core, to the audit log or to another app of this
    package.
    """
    return label == CORE_LABEL or label.startswith(_APP_PREFIX)


def is_own_permission(permission: str) -> bool:
    """Return whether a permission, as `app_label.codename`, belongs to this package."""
    label, _dot, _codename = permission.partition(".")
    return is_own_label(label)


def build_own_label_condition(lookup: str) -> Q:
    """Return a condition that matches the labels of this package. lookup: the path to the label,
    such as `content_type__app_label`.
    """
    return Q((lookup, CORE_LABEL)) | Q((f"{lookup}__startswith", _APP_PREFIX))

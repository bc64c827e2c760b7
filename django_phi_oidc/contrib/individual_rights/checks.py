"""System check of `PATIENT_RESOURCES`."""

from collections.abc import Callable
from typing import Any

from django.core.checks import Tags

from ..._internal.check_messages import Messages, in_settings, register_check, warning
from ...access.enforcement import GUARD_MARK
from ...checks._urls import iterate_url_patterns
from ...extensions import access_overrides
from ..common.option_checks import check_option
from . import conf


@register_check(Tags.security)
def check_patient_resources_function(**kwargs: Any) -> Messages:
    """E002: the function of the project cannot be imported."""
    yield from check_option(conf.patient_resources)


@register_check(Tags.security)
def check_patient_resources(**kwargs: Any) -> Messages:
    """W075: resources are guarded, and the accounting of disclosures cannot find whose they are."""
    if conf.patient_resources() is not None:
        return
    is_override_offered = any(source.is_offered() for source in access_overrides)
    if is_override_offered or _has_guarded_view():
        text = (
            "PATIENT_RESOURCES is not set: the accounting of "
            "disclosures lacks the access to guarded resources."
        )
        hint = "Name a function from a user to the resources about this user. "
        yield warning(
            75,
            text,
            hint + in_settings('PHI_OIDC["PATIENT_RESOURCES"] = "portal.records.resources_of"'),
        )


def _has_guarded_view() -> bool:
    return any(_is_guarded(pattern.callback) for pattern in iterate_url_patterns())


def _is_guarded(view: Callable[..., Any]) -> bool:
    """Return whether this package guards the view. Combined permission classes (`A | B`) are NOT
    checked.
    """
    view_class = getattr(view, "view_class", None) or getattr(view, "cls", None)
    candidates = (view, view_class, *getattr(view_class, "permission_classes", ()))
    return any(getattr(candidate, GUARD_MARK, False) for candidate in candidates)

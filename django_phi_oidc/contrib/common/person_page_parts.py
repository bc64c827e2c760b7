"""What the sections and actions of several apps need on the page of a person."""

import json
from collections.abc import Collection
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from ..._internal.admin_columns import AdminLink
from ...claims.models import get_claim_label
from .person_pages import ActionResult


def build_disclosure_result(claims: Collection[Any]) -> ActionResult:
    """Return the labels and values of disclosed claims.

    claims: `RevealResult`, or other objects with name, value, notice and `is_undecryptable`.
    """
    rows = []
    for claim in claims:
        rows.append((get_claim_label(claim.name), _describe_value(claim)))
    return ActionResult(rows=tuple(rows), notice=_find_notice(claims))


def _find_notice(claims: Collection[Any]) -> str:
    """Return the notice of the first claim that has one, or empty."""
    for claim in claims:
        notice: str = claim.notice
        if notice:
            return notice
    return ""


def _describe_value(claim: Any) -> str:
    if getattr(claim, "is_refused", False):
        return _(
            "Not shown: you do not have the permission for this purpose, or the consent is missing."
        )
    if getattr(claim, "is_scrubbed", False):
        return _("Its retention period has ended.")
    if claim.is_undecryptable:
        return _("It cannot be decrypted with the present keys.")

    if isinstance(claim.value, str):
        return claim.value
    return json.dumps(claim.value, ensure_ascii=False, indent=2)


def build_admin_link(text: object, url_prefix: str, pk: object) -> AdminLink:
    """Return a link to the change page of a row.

    url_prefix: label of the app and name of the model, as in the names of the admin's URLs.
    """
    return AdminLink(str(text), reverse(f"admin:{url_prefix}_change", args=[pk]))


def list_unavailable(condition: object, *actions: str) -> frozenset[str]:
    """Return the actions, unless the condition is true."""
    if condition:
        return frozenset()
    return frozenset(actions)

"""The parts of the page of a person in the admin: sections, and the actions below them.

Apps create them in their module `officer_pages` and add them to `extensions.person_sections` and
`extensions.person_actions`.
"""

import json
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.urls import reverse
from django.utils.functional import Promise
from django.utils.translation import gettext as _

from .._internal.admin_columns import AdminLink
from ..audit.events import Origin
from ..audit.request_context import Actor
from ..claims.models import get_claim_label
from .models import PairwiseSubject
from .person_forms import ActionForm, Choices

MAX_ROWS = 50
"""Rows of a section: the newest."""
TableRow = tuple[Any, ...]
Label = str | Promise


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionRequest:
    """A request by actor for the page of person."""

    actor: Actor
    person: AbstractBaseUser
    subjects: Sequence[PairwiseSubject]
    """The subjects that are linked to the person."""
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionContent:
    """What a section shows: the rows of its table, or the reason why there is none."""

    rows: Sequence[TableRow] = ()
    fault: str = ""
    timeline: Sequence[Any] = ()
    """The lists of events of the section `timeline`, which has no table."""
    unavailable_actions: frozenset[str] = frozenset()
    """Actions that have nothing to do, judging by the rows."""
    live_count: int = 0
    """The number of live sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonSection:
    """A section of the page. No value, token or key may be read for it."""

    name: str
    position: int
    """Sections are shown in the order of their positions, regardless of INSTALLED_APPS."""
    permission: str
    """The permission that a user needs to see the section, as `app_label.codename`."""
    title: Label
    columns: tuple[Label, ...]
    build: Callable[[SectionRequest], SectionContent]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionRequest:
    """An action of actor that concerns person."""

    actor: Actor
    person: AbstractBaseUser
    now: datetime
    form_data: dict[str, Any] = field(default_factory=dict, repr=False)
    """The cleaned data of the form."""

    @property
    def origin(self) -> Origin:
        return self.actor.origin

    @property
    def consent(self) -> str:
        return str(self.form_data.get("consent", ""))

    @property
    def subjects(self) -> list[PairwiseSubject]:
        """The subjects that are linked to the person."""
        return list(PairwiseSubject.objects.filter(user=self.person.pk).order_by("pk"))

    @property
    def chosen_ids(self) -> list[uuid.UUID]:
        return [uuid.UUID(pk) for pk in self.form_data["chosen"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ActionResult:
    """What the response discloses once: labels and texts."""

    rows: tuple[tuple[str, str], ...] = field(repr=False)
    document: str = field(default="", repr=False)
    """A document to download instead."""
    notice: str = ""
    """A text that must accompany it. Spec: 42 CFR 2.32."""


def _offer_no_rows(request: ActionRequest) -> Choices:
    return ()


def _has_no_other_permission(user: Any, person: Any) -> bool:
    return False


def _may_concern_anyone(user: Any, person: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonAction:
    """An action, and the permission that it needs. It calls the use case that owns the rule.

    It is confirmed on a page of its own. What it discloses is only in the response to that form.
    """

    name: str
    section: str
    """The section below which the action is offered."""
    permission: str
    title: Label
    description: Label
    run: Callable[[ActionRequest], str | ActionResult]
    """Return the result as a message, or what is disclosed. Raises: PhiOidcError."""
    choices: Callable[[ActionRequest], Choices] = _offer_no_rows
    form_class: type[ActionForm] = ActionForm
    has_other_permission: Callable[[Any, Any], bool] = _has_no_other_permission
    """Whether user may perform it on person without `permission`."""
    may_concern: Callable[[Any, Any], bool] = _may_concern_anyone
    """Whether user, who has the permission, may perform it on person."""
    needs_provider_session: bool = False
    """Whether the user must have signed in through a provider, as for revealing a single claim."""

    def has_permission(self, user: Any, person: Any) -> bool:
        return user.has_perm(self.permission) or self.has_other_permission(user, person)

    def is_permitted(self, user: Any, person: Any) -> bool:
        return self.has_permission(user, person) and self.may_concern(user, person)


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

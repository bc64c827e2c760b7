"""The parts of the page of a person in the admin: sections, and the actions below them.

Apps create them in their module `officer_pages` and add them to `person_sections` and
`person_actions`.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django import forms
from django.contrib.auth.base_user import AbstractBaseUser
from django.utils.functional import Promise

from ...audit.events import Origin
from ...audit.request_context import Actor
from ...extensions import Registry
from ...subjects.models import PairwiseSubject

MAX_ROWS = 50
"""Rows of a section: the newest."""
Choices = Sequence[tuple[str, str]]
"""The rows that the form of an action offers: key and label of each."""
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


class ActionForm(forms.Form):
    """Asks for confirmation only."""

    is_empty = False
    """Whether there is no row to choose."""

    def __init__(self, *args: Any, choices: Choices = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_choices(choices)

    def set_choices(self, choices: Choices) -> None:
        """Offer these rows, which are of this person, and accept no others."""


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


person_actions: Registry[PersonAction] = Registry(
    "Offer an action on the page of a person for officers."
)
person_sections: Registry[PersonSection] = Registry(
    "Show a section on the page of a person for officers."
)

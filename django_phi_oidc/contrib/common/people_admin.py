"""Change lists with people: names instead of keys by one query a page, and a search by name, user
name and ids.
"""

import uuid
from collections.abc import Iterable, Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.views.main import ChangeList
from django.contrib.auth import get_user_model
from django.core.exceptions import FieldDoesNotExist, ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from ...audit.admin_actions import RowActionsAdmin
from ...audit.admin_base import AuditedAdmin, CascadeOnlyAdmin, NamedRow
from ...audit.bounded_lists import BoundedChangeList
from ...subjects.people import find_people
from .person_pages import person_sections

MAX_ACCOUNTS = 50
"""Accounts that a search by name looks up."""
NAME_FIELDS = ("first_name", "last_name")


def can_view_person_pages(user: Any) -> bool:
    """Return whether a section of the page of a person is for user."""
    return any(user.has_perm(section.permission) for section in person_sections)


def list_matching_accounts(term: str) -> list[Any]:
    """Return the keys of at most MAX_ACCOUNTS + 1 accounts. term: a key, a subject's UUID, or a
    name's beginning.

    A name is the user name (case matters, so that the database uses its index), or the first and
    the last name.
    """
    model = get_user_model()
    users: QuerySet[Any] = model._default_manager.order_by()
    found = set(users.filter(**{model.USERNAME_FIELD: term}).values_list("pk", flat=True))
    try:
        subject = uuid.UUID(term)
    except ValueError:
        subject = None
    if subject is not None:
        found.update(users.filter(pairwise_subjects__uuid=subject).values_list("pk", flat=True))
    try:
        key = model._meta.pk.to_python(term)
        model._meta.pk.run_validators(key)
        found.update(users.filter(pk=key).values_list("pk", flat=True))
    except ValidationError:
        pass
    # Most projects have no index for names, so they are not compared with a key or a complete user
    # name.
    if not found and subject is None:
        named = Q(**{f"{model.USERNAME_FIELD}__startswith": term})
        fields = [name for name in NAME_FIELDS if _has_field(model, name)]
        if fields:
            named |= _build_name_condition(fields, term)
        found.update(users.filter(named).values_list("pk", flat=True)[: MAX_ACCOUNTS + 1])
    return sorted(found, key=str)[: MAX_ACCOUNTS + 1]


def _has_field(model: Any, name: str) -> bool:
    try:
        model._meta.get_field(name)
    except FieldDoesNotExist:
        return False
    return True


def _build_name_condition(fields: Sequence[str], term: str) -> Q:
    """Return the condition that each word of the term begins one of the names, or the term begins
    one of them.
    """
    condition = Q()
    whole = Q()
    for word in term.split():
        starts = Q()
        for name in fields:
            starts |= Q(**{f"{name}__istartswith": word})
        condition &= starts
    for name in fields:
        whole |= Q(**{f"{name}__istartswith": term})
    return condition | whole


class PeopleChangeList(BoundedChangeList):
    """Looks up the people of the page before it is rendered."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        model_admin: Any = self.model_admin
        model_admin.attach_people(request, self.result_list)


class PeopleAdmin(AuditedAdmin):
    """Shows people by name, with links to their pages for users who may view these, and searches
    rows by people.
    """

    account_lookup = ""
    """The lookup from a row to its account."""
    uuid_lookups: tuple[str, ...] = ()
    """Lookups for which the search accepts a complete UUID."""
    search_fields = ("pk",)
    """Only makes Django show the box."""
    search_help_text = gettext_lazy(
        "The beginning of a name or user name, or a complete account or subject ID."
    )

    def list_actors(self, row: Any) -> Iterable[str]:
        """Return the accounts of the row by their keys, and its actors."""
        return ()

    def list_subjects(self, row: Any) -> Iterable[str]:
        """Return the UUIDs of the subjects of the row."""
        return ()

    def attach_people(self, request: HttpRequest, rows: Iterable[Any]) -> None:
        """Look up the people of these rows, by one query, for `show_actor` and `show_subject`."""
        rows = list(rows)
        actors: set[str] = set()
        subjects: set[str] = set()
        for row in rows:
            for actor in self.list_actors(row):
                if actor:
                    actors.add(actor)
            subjects.update(self.list_subjects(row))
        people = find_people(actors=actors, subjects=subjects)

        # In a popup, a click selects the row.
        is_linked = IS_POPUP_VAR not in request.GET and can_view_person_pages(request.user)
        for row in rows:
            row.people = people
            row.has_person_links = is_linked

    def describe_row(self, row: Any) -> str:
        """Return the row in words, without HTML. Requires: the people are attached."""
        return str(row)

    def describe_rows(self, request: HttpRequest, rows: Sequence[Any]) -> list[str]:
        """Return the rows in words."""
        self.attach_people(request, rows)
        return [self.describe_row(row) for row in rows]

    def name_row(self, request: HttpRequest, row: Any) -> str:
        return self.describe_rows(request, [row])[0]

    def get_name(self, row: Any, actor: str) -> str:
        """Return the name of an actor without a link; the actor as recorded if it has no account
        any more.
        """
        return str(row.people.find_actor(actor) or actor)

    def show_actor(self, row: Any, actor: str) -> str:
        """Return the name of an actor, with a link; the actor as recorded if it has no account any
        more.
        """
        return self._show(row, row.people.find_actor(actor), actor)

    def show_subject(self, row: Any, subject: str) -> str:
        """Return the name of a subject's person, with a link; the UUID of a subject that is not
        linked any more.
        """
        return self._show(row, row.people.find_subject(subject), subject)

    def _show(self, row: Any, person: Any, code: str) -> str:
        if person is None:
            return code or str(self.get_empty_value_display())
        if person.url and row.has_person_links:
            return format_html('<a href="{}">{}</a>', person.url, person.label)
        return str(person.label)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PeopleChangeList

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if (row := kwargs.get("obj")) is not None:
            self.attach_people(request, [row])
            context["subtitle"] = self.describe_row(row)
            context["original"] = NamedRow(row, context["subtitle"])
        return super().render_change_form(request, context, *args, **kwargs)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Use indexes: the rows with that id, else those of the people that match. Django compares
        substrings.
        """
        if not (term := search_term.strip()):
            return queryset, False
        for rows in self.list_exact_matches(queryset, term):
            if rows.exists():
                return rows, False
        accounts = list_matching_accounts(term)
        if len(accounts) > MAX_ACCOUNTS:
            message = _("More than %(most)d people match. Enter more of the name.")
            self.message_user(request, message % {"most": MAX_ACCOUNTS}, messages.WARNING)
        return self.filter_by_accounts(queryset, accounts[:MAX_ACCOUNTS]), False

    def list_exact_matches(self, queryset: QuerySet[Any], term: str) -> Iterable[QuerySet[Any]]:
        """Return the rows for which the term is a complete value, by each lookup."""
        try:
            value = uuid.UUID(term)
        except ValueError:
            return ()
        return (queryset.filter(**{lookup: value}) for lookup in self.uuid_lookups)

    def filter_by_accounts(self, queryset: QuerySet[Any], accounts: Sequence[Any]) -> QuerySet[Any]:
        """Return the rows of these accounts."""
        return queryset.filter(**{f"{self.account_lookup}__in": accounts})


class SubjectRowsAdmin(PeopleAdmin, RowActionsAdmin, CascadeOnlyAdmin):
    """Rows of subjects, with the name of the person."""

    account_lookup = "subject__user"
    uuid_lookups: tuple[str, ...] = ("subject__uuid",)
    list_select_related = ("subject",)

    def list_actors(self, row: Any) -> Iterable[str]:
        if row.subject:
            return (str(row.subject.user_id),)
        return ()

    @admin.display(description=gettext_lazy("Person"))
    def person(self, row: Any) -> str:
        if row.subject:
            return self.show_actor(row, str(row.subject.user_id))
        return _("Erased")

    @admin.display(description=gettext_lazy("Subject"))
    def subject_uuid(self, row: Any) -> str:
        return str(row.subject or self.get_empty_value_display())

    def describe_person(self, row: Any) -> str:
        """Return the name without a link. Requires: the people are attached."""
        if row.subject:
            return self.get_name(row, str(row.subject.user_id))
        return _("Erased")

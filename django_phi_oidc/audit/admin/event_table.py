"""Events as rows of a table: words for their codes, and the names of their people."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.contrib.auth.models import Group
from django.db.models import Model
from django.utils.text import capfirst

from ..._internal.admin_columns import format_utc
from ..._internal.app_configs import list_installed_features
from ..descriptions import get_action_label, get_outcome_label, get_purpose_label, get_reason_label
from ..event_people import People, Person, find_people
from ..events import OUTCOMES
from ..models import AuditEvent
from ..operators import OPERATOR_PREFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTableRow:
    """An event with its labels. actor, represented, subject: None if there is no account, or no
    longer.
    """

    event: AuditEvent
    time: str
    """In UTC, to the second. Not formatted by the template, which would take a seventh of the
    page's time for it.
    """
    action: str
    outcome: str
    """Empty for success."""
    reason: str
    purpose: str
    record: str
    """What the event concerns besides the person; empty if it is the account of the subject."""
    actor: Person | None
    represented: Person | None
    """The account on whose behalf the actor acted."""
    subject: Person | None

    @property
    def microseconds(self) -> str:
        """The rest of the time."""
        return f"{self.event.occurred_at.microsecond:06d}"

    @property
    def is_actor_shown(self) -> bool:
        """Whether the actor is shown as it is in the event: it has no name, or it is the operator
        of a command.
        """
        return self.actor is None or self.event.actor.startswith(OPERATOR_PREFIX)


def build_event_table(events: Sequence[AuditEvent], people: People) -> list[EventTableRow]:
    """Return a row for each event, without a query."""
    event_table = []
    for event in events:
        event_table.append(_build_row(event, people))
    return event_table


def _build_row(event: AuditEvent, people: People) -> EventTableRow:
    account = people.find_actor(_get_account_key(event))

    outcome = ""
    if event.outcome != OUTCOMES[0]:
        outcome = get_outcome_label(event.outcome)

    reason = ""
    if event.reason:
        reason = get_reason_label(event.reason)

    purpose = ""
    if event.purpose:
        purpose = get_purpose_label(event.purpose)

    record = ""
    if not account:
        record = get_record_label(event.resource)

    return EventTableRow(
        event=event,
        time=format_utc(event.occurred_at),
        action=get_action_label(event.action),
        outcome=outcome,
        reason=reason,
        purpose=purpose,
        actor=people.find_actor(event.actor),
        represented=people.find_actor(event.on_behalf_of),
        subject=people.find_subject(event.subject) or account,
        record=record,
    )


def find_people_of_events(
    events: Collection[AuditEvent], *, actors: Collection[str] = (), subjects: Collection[str] = ()
) -> People:
    """Return the people of the events, and these, by one query."""
    accounts = set(actors)
    all_subjects = set(subjects)
    for event in events:
        accounts |= {event.actor, event.on_behalf_of, _get_account_key(event)}
        all_subjects.add(event.subject)
    return find_people(actors=accounts - {""}, subjects=all_subjects - {""})


def get_record_label(resource: str) -> str:
    """Return the resource of an event in words if it is a row of this package or a group; otherwise
    as it is.
    """
    kind, _, key = resource.partition("/")
    model = _find_model(kind)
    if model is None:
        return resource
    name = str(capfirst(model._meta.verbose_name))

    if key.isdecimal():
        return f"{name} {key}"
    return name


def _find_model(kind: str) -> type[Model] | None:
    """Return the model of that name in one of the installed apps of this package, or Group."""
    if kind == "group":
        return Group
    for config in list_installed_features():
        model = config.models.get(kind.lower())
        if model is not None and model.__name__ == kind:
            return model
    return None


def _get_account_key(event: AuditEvent) -> str:
    """Return the primary key if the resource of the event is an account; otherwise an empty
    text.
    """
    kind, _, key = event.resource.partition("/")
    if kind == "user":
        return key
    return ""

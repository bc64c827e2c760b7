"""What the page of a single event shows: words first, then the stored fields."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext

from ..._internal.admin_columns import format_utc
from ...extensions import event_words
from ..descriptions import (
    get_action_explanation,
    get_action_label,
    get_alert_label,
    get_detail_label,
    get_detail_value_label,
    get_outcome_label,
    get_provider_error_label,
    get_purpose_label,
    get_reason_label,
)
from ..descriptions.event_sentences import describe_event
from ..event_people import Person, find_people
from ..events import parse_detail
from ..models import AuditEvent
from .event_table import get_record_label

_USER_RESOURCE = "user/"


class EventRow(NamedTuple):
    """A line of the page. url: of the text, if it is a link."""

    label: str
    text: str
    url: str = ""
    is_bad: bool = False


def build_event_context(event: AuditEvent) -> dict[str, Any]:
    """Return the context of the template. Names of people cost one SELECT."""
    return {
        "title": describe_event(event),
        "label": get_action_label(event.action),
        "explanation": get_action_explanation(event.action),
        "rows": list(_iter_rows(event)),
        "detail_rows": list(_iter_detail_rows(event)),
        "links": list(_iter_links(event)),
        "detail": _format_json(event.detail),
    }


def _iter_detail_rows(event: AuditEvent) -> Iterator[EventRow]:
    for key, value in parse_detail(event.detail).items():
        yield EventRow(get_detail_label(key), _format_value(key, value))


def _iter_rows(event: AuditEvent) -> Iterator[EventRow]:
    """Yield who did what, when and why, without empty rows."""
    if event.resource.startswith(_USER_RESOURCE):
        user_pk = event.resource.removeprefix(_USER_RESOURCE)
    else:
        user_pk = ""

    people = find_people(
        actors=[event.actor, event.on_behalf_of, user_pk], subjects=[event.subject]
    )
    yield EventRow(gettext("Time"), f"{format_utc(event.occurred_at)} UTC")
    yield EventRow(
        gettext("Outcome"), get_outcome_label(event.outcome), is_bad=event.outcome != "success"
    )
    if event.reason:
        yield EventRow(gettext("Reason"), get_reason_label(event.reason))
    if remedy := _find_remedy(event):
        yield EventRow(gettext("What to do"), remedy)
    if event.actor:
        yield _build_person_row(gettext("Actor"), people.find_actor(event.actor), event.actor)
    else:
        yield EventRow(
            gettext("Actor"), gettext("The portal itself, or a user who is not signed in")
        )
    if event.on_behalf_of:
        represented = people.find_actor(event.on_behalf_of)
        yield _build_person_row(gettext("On behalf of"), represented, event.on_behalf_of)
    if event.subject:
        yield _build_person_row(
            gettext("Person"), people.find_subject(event.subject), event.subject
        )
    if event.purpose:
        yield EventRow(gettext("Purpose"), get_purpose_label(event.purpose))
    if event.resource:
        account = None
        if user_pk:
            account = people.find_actor(user_pk)
        yield _build_person_row(gettext("Record"), account, get_record_label(event.resource))
    if event.provider:
        yield EventRow(gettext("Provider"), _find_provider_label(event.provider))
    if event.client_ip:
        yield EventRow(gettext("Address"), event.client_ip)


def _build_person_row(label: str, person: Person | None, code: str) -> EventRow:
    """Return the row of a person. A viewer of events may open the page of each person, which has
    the timeline.
    """
    if person:
        return EventRow(label, person.label, person.url)
    return EventRow(label, code)


def _iter_links(event: AuditEvent) -> Iterator[EventRow]:
    """Yield links to related events."""
    page = reverse("admin:phi_oidc_audit_auditevent_changelist")
    for label, name, value in (
        (gettext("All events by this user"), "actor", event.actor),
        (gettext("All events on behalf of this account"), "on_behalf_of", event.on_behalf_of),
        (gettext("All events about this person"), "subject", event.subject),
        (gettext("All events of this session"), "search", event.session),
    ):
        if value:
            yield EventRow(label, label, f"{page}?{urlencode({name: value})}")


def _find_remedy(event: AuditEvent) -> str:
    """Return what an operator can do about a refusal or failure, translated; empty for another
    event.
    """
    provider_error = str(parse_detail(event.detail).get("provider_error", ""))
    for words in event_words:
        remedy = words.find_remedy(event.action, event.reason, provider_error)
        if remedy:
            return remedy
    return ""


def _find_provider_label(name: str) -> str:
    for words in event_words:
        label = words.find_provider_label(name)
        if label:
            return label
    return name


def _format_value(key: str, value: Any) -> str:
    """Return a value of the detail in words."""
    if isinstance(value, bool):
        if value:
            return gettext("yes")
        return gettext("no")
    if isinstance(value, list):
        return ", ".join(_format_value(key, item) for item in value)
    formatter = _FORMATTERS.get(key)
    if formatter:
        return formatter(str(value))
    for words in event_words:
        label = words.find_detail_label(key, str(value))
        if label:
            return label
    return get_detail_value_label(key, str(value))


def _format_time(text: str) -> str:
    try:
        return f"{format_utc(datetime.fromisoformat(text))} UTC"
    except (OverflowError, ValueError):
        return text


def _format_rule(rule: str) -> str:
    """Return an alert's rule or, for a logout token, the violated rule."""
    label = get_alert_label(rule)
    if label != rule:
        return label
    return get_reason_label(rule)


_FORMATTERS: Mapping[str, Callable[[str], str]] = {
    **dict.fromkeys(("until", "suspended_until", "since"), _format_time),
    "provider_error": get_provider_error_label,
    "purposes": get_purpose_label,
    "rule": _format_rule,
}


def _format_json(detail: str) -> str:
    """Return the detail with line breaks; unchanged if it is not JSON."""
    try:
        return json.dumps(json.loads(detail), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return detail

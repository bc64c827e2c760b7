"""Forms for the query strings of the audit pages: strict parsing, and the canonical query
string.
"""

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .actions import RESERVED_PREFIXES, Action
from .events import MAX_CHARACTERS, OUTCOMES
from .search import EventFilters, split_list

_EARLIEST_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""No event id has an earlier time."""
_MAX_TREE_SIZE = 2**63 - 1
_MAX_LIST_CHARACTERS = 2_000
SHOW_ROUTINE = "show"


class UTCDateTimeField(forms.DateTimeField):
    """A time in UTC, regardless of the project's time zone."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "any"})

    def to_python(self, value: Any) -> datetime | None:
        """Raises: ValidationError, also for a time before all events."""
        with timezone.override(UTC):
            time = super().to_python(value)
        if time is not None and time < _EARLIEST_TIME:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return time


def _create_text_field(max_length: int = MAX_CHARACTERS) -> forms.CharField:
    """Return a field for the value of an event column. Django refuses NUL."""
    return forms.CharField(required=False, max_length=max_length)


class EventFiltersForm(forms.Form):
    """Filters for events, without labels: only the query string is parsed. Texts must match
    completely.
    """

    search = _create_text_field()
    action = _create_text_field(_MAX_LIST_CHARACTERS)
    outcome = forms.ChoiceField(required=False, choices=[(name, name) for name in OUTCOMES])
    actor = _create_text_field()
    on_behalf_of = _create_text_field()
    subject = _create_text_field()
    purpose = _create_text_field()
    person = _create_text_field(_MAX_LIST_CHARACTERS)
    since = UTCDateTimeField(required=False)
    until = UTCDateTimeField(required=False)
    routine = forms.ChoiceField(required=False, choices=[(SHOW_ROUTINE, SHOW_ROUTINE)])
    """Whether the page shows routine events. It is no filter: an export has them in any case."""

    def clean_action(self) -> str:
        """Refuse actions that no event can have. Actions of host projects, even former ones, have
        other prefixes.
        """
        actions = str(self.cleaned_data["action"])
        for action in actions.split(",") if actions else ():
            prefix, dot, name = action.partition(".")
            if action not in set(Action) and (
                prefix in RESERVED_PREFIXES or not (prefix and dot and name)
            ):
                raise ValidationError(_("There is no such action."))
        return actions

    def clean_person(self) -> str:
        """Refuse subjects that are no UUIDs: each becomes part of the query, and the subject of an
        event.
        """
        account, *subjects = split_list(str(self.cleaned_data["person"])) or [""]
        parse = forms.UUIDField().to_python
        ids = [account]
        for subject in subjects:
            ids.append(str(parse(subject)))
        return ",".join(dict.fromkeys(ids))

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        if cleaned.get("search") and cleaned.get("person"):
            raise ValidationError(_("Search for an ID, or select a person, not both."))
        return cleaned

    def get_filters(self) -> EventFilters:
        """Requires: is_valid()."""
        values = dict(self.cleaned_data)
        values.pop("routine", None)
        return EventFilters(**values)

    def build_query_parameters(self) -> dict[str, str]:
        """Return the used filters as they are in a URL, and as the browser's input for a time
        accepts them.
        """
        values = {name: value for name, value in self.cleaned_data.items() if value}
        for name in {"since", "until"} & values.keys():
            values[name] = values[name].astimezone(UTC).replace(tzinfo=None).isoformat()
        return values


class PageCursorForm(forms.Form):
    """The row before or after which a page begins. It is part of the URL, without an input on the
    page.
    """

    def list_errors(self) -> list[Any]:
        """Return the errors to be shown on the page."""
        if self.is_valid():
            return []
        return list(self.non_field_errors()) or [
            _("The address of this page names no entry to begin at.")
        ]

    def clean(self) -> dict[str, Any]:
        cleaned = self.cleaned_data
        if cleaned.get("before") is not None and cleaned.get("after") is not None:
            raise ValidationError(_("A page begins before an entry or after one, not both."))
        return cleaned


class EventCursorForm(PageCursorForm):
    before = forms.UUIDField(required=False)
    after = forms.UUIDField(required=False)


class CheckpointCursorForm(PageCursorForm):
    before = forms.IntegerField(required=False, min_value=0, max_value=_MAX_TREE_SIZE)
    after = forms.IntegerField(required=False, min_value=0, max_value=_MAX_TREE_SIZE)

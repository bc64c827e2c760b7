"""Forms for the query strings of the audit pages: strict parsing, and the canonical query string."""

from datetime import UTC, datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .actions import RESERVED_PREFIXES, Action
from .events import MAX_CHARACTERS
from .search import EventFilters

_EARLIEST_TIME = datetime(1970, 1, 1, tzinfo=UTC)
"""No event id has an earlier time."""
_MAX_TREE_SIZE = 2**63 - 1
_OUTCOME_LABELS = {"success": _("success"), "failure": _("failure"), "error": _("error")}


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


def _create_text_field(label: Any, **options: Any) -> forms.CharField:
    """Return a field for the value of an event column. Django refuses NUL."""
    return forms.CharField(label=label, required=False, max_length=MAX_CHARACTERS, **options)


class EventFiltersForm(forms.Form):
    """Filters for events. Texts must match completely."""

    search = _create_text_field(
        _("Search"),
        help_text=_("A UUID, in full: of an event, a session or a subject. Anything else: an actor."),
        widget=forms.SearchInput,
    )
    action = _create_text_field(_("Action"), widget=forms.TextInput(attrs={"list": "trail-actions"}))
    outcome = forms.ChoiceField(label=_("Outcome"), required=False, choices=[("", _("any")), *_OUTCOME_LABELS.items()])
    actor = _create_text_field(_("Actor"), help_text=_("The primary key of a user, or os:name@host of a command."))
    subject = _create_text_field(_("Subject"), help_text=_("The UUID of the person whose data was used."))
    since = UTCDateTimeField(label=_("From (UTC)"), required=False)
    until = UTCDateTimeField(label=_("Before (UTC)"), required=False)

    def clean_action(self) -> str:
        """Refuse actions that no event can have. Actions of host projects, even former ones, have other prefixes."""
        action = str(self.cleaned_data["action"])
        prefix, dot, name = action.partition(".")
        if action and action not in set(Action) and (prefix in RESERVED_PREFIXES or not (prefix and dot and name)):
            raise ValidationError(_("There is no such action."))
        return action

    def get_filters(self) -> EventFilters:
        """Requires: is_valid()."""
        return EventFilters(**self.cleaned_data)

    def build_query_parameters(self) -> dict[str, str]:
        """Return the used filters as they are in a URL, and as the browser's input for a time accepts them."""
        values = {name: value for name, value in self.cleaned_data.items() if value}
        for name in {"since", "until"} & values.keys():
            values[name] = values[name].astimezone(UTC).replace(tzinfo=None).isoformat()
        return values


class PageCursorForm(forms.Form):
    """The row before or after which a page begins. It is part of the URL, without an input on the page."""

    def list_errors(self) -> list[Any]:
        """Return the errors to be shown on the page."""
        if self.is_valid():
            return []
        return list(self.non_field_errors()) or [_("The address of this page names no entry to begin at.")]

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

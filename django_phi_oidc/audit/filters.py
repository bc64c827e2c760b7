"""What the pages of the trail are asked, as it stands in their addresses: read strictly, and spelt back."""

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
"""No id of an event begins with an earlier time."""
_MAX_TREE_SIZE = 2**63 - 1
_OUTCOME_LABELS = {"success": _("success"), "failure": _("failure"), "error": _("error")}


class UTCDateTimeField(forms.DateTimeField):
    """A time as the trail has it, whatever the zone of the project."""

    widget = forms.DateTimeInput(attrs={"type": "datetime-local", "step": "any"})

    def to_python(self, value: Any) -> datetime | None:
        """Return the time. Raises: ValidationError, also for one before all events."""
        with timezone.override(UTC):
            moment = super().to_python(value)
        if moment is not None and moment < _EARLIEST_TIME:
            raise ValidationError(self.error_messages["invalid"], code="invalid")
        return moment


def _create_text_field(label: Any, **options: Any) -> forms.CharField:
    """Return an input for what a column of the events holds; NUL is refused by Django."""
    return forms.CharField(label=label, required=False, max_length=MAX_CHARACTERS, **options)


class EventFiltersForm(forms.Form):
    """What is asked of the trail. Each text is compared in full, never in part."""

    search = _create_text_field(
        _("Search"),
        help_text=_("A UUID, in full: of an event, a session or a subject. Anything else: an actor."),
        widget=forms.SearchInput,
    )
    action = _create_text_field(_("Action"), widget=forms.TextInput(attrs={"list": "trail-actions"}))
    outcome = forms.ChoiceField(label=_("Outcome"), required=False, choices=[("", _("any")), *_OUTCOME_LABELS.items()])
    actor = _create_text_field(_("Actor"), help_text=_("The primary key of a user."))
    subject = _create_text_field(_("Subject"), help_text=_("The UUID of whose data it was."))
    since = UTCDateTimeField(label=_("From (UTC)"), required=False)
    until = UTCDateTimeField(label=_("Before (UTC)"), required=False)

    def clean_action(self) -> str:
        """Refuse what no event can bear: one that a host project registered, now or once, has a prefix of its own."""
        action = str(self.cleaned_data["action"])
        prefix, dot, name = action.partition(".")
        if action and action not in set(Action) and (prefix in RESERVED_PREFIXES or not (prefix and dot and name)):
            raise ValidationError(_("There is no such action."))
        return action

    def get_filters(self) -> EventFilters:
        """Return the filters. Requires: is_valid()."""
        return EventFilters(**self.cleaned_data)

    def build_query_parameters(self) -> dict[str, str]:
        """Return what is asked for as it stands in a URL, and as the browser's own input for a time reads it."""
        given = {name: value for name, value in self.cleaned_data.items() if value}
        return {
            name: _format_time(value) if isinstance(value, datetime) else str(value) for name, value in given.items()
        }


class PageCursorForm(forms.Form):
    """Beside which row a page begins: the part of the address that has no input on the page."""

    def list_errors(self) -> list[Any]:
        """Return what is wrong with it."""
        if self.is_valid():
            return []
        return list(self.non_field_errors()) or [_("The address of this page names no entry to begin beside.")]

    def clean(self) -> dict[str, Any]:
        """Refuse two ends at once."""
        cleaned = self.cleaned_data
        if cleaned.get("before") is not None and cleaned.get("after") is not None:
            raise ValidationError(_("A page lies before an entry or after one, not both."))
        return cleaned


class EventCursorForm(PageCursorForm):
    """Beside which event a page begins."""

    before = forms.UUIDField(required=False)
    after = forms.UUIDField(required=False)


class CheckpointCursorForm(PageCursorForm):
    """Beside which checkpoint a page begins."""

    before = forms.IntegerField(required=False, min_value=0, max_value=_MAX_TREE_SIZE)
    after = forms.IntegerField(required=False, min_value=0, max_value=_MAX_TREE_SIZE)


def _format_time(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat()

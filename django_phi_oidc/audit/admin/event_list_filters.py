"""The filters in the side bar of the audit log's page, as links like those of Django's own
lists.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from django.utils.translation import gettext as _

from ...extensions import event_words
from ..actions import DISCLOSURE_ACTIONS
from ..descriptions import get_action_label, get_outcome_label, get_purpose_label
from ..event_people import People
from ..events import OUTCOMES, get_registered_disclosure_actions, list_actions
from ..purposes import EMERGENCY_PURPOSES, EXPORT_PURPOSES
from ..search import EventFilters, split_list

PERSON_FILTERS = ("person", "actor", "on_behalf_of", "subject")
_SIGN_IN_PREFIXES = ("login", "logout", "session")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterChoice:
    """A link of a filter. The names are those that Django's template expects."""

    display: str
    query_string: str
    selected: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SideBarFilter:
    """A filter, with a title in lower case, as Django's template expects."""

    name: str
    title: str
    choices: tuple[FilterChoice, ...]


def list_side_bar_filters(
    parameters: Mapping[str, str], people: People, *, purposes: Collection[str], now: datetime
) -> list[SideBarFilter]:
    """Return the filters of the side bar. parameters: of the page. purposes: those of the events on
    it.
    """
    filters = [
        _build_filter("outcome", _("outcome"), parameters, _list_outcomes()),
        _build_filter("since", _("time"), parameters, _list_times(now), cleared=("since", "until")),
    ]
    if any(name in parameters for name in PERSON_FILTERS):
        filters.append(_build_person_filter(parameters, people))
    used = {*purposes, parameters.get("purpose", "")}
    filters += [
        _build_filter("purpose", _("purpose"), parameters, _list_purposes(used)),
        _build_filter(
            "action", _("action"), parameters, _list_actions(parameters.get("action", ""))
        ),
    ]
    return filters


def _build_filter(
    name: str,
    title: str,
    parameters: Mapping[str, str],
    choices: Iterable[tuple[str, str]],
    cleared: Collection[str] = (),
) -> SideBarFilter:
    """Return a filter of one parameter. choices: values and labels. cleared: the parameters that a
    choice removes.
    """
    rest = dict(parameters)
    for key in (name, *cleared):
        rest.pop(key, None)
    is_any = rest.keys() == parameters.keys()
    links = [FilterChoice(display=_("All"), query_string=f"?{urlencode(rest)}", selected=is_any)]
    for value, label in choices:
        query = urlencode({**rest, name: value})
        is_selected = parameters.get(name) == value and "until" not in parameters.keys() & {
            *cleared
        }
        links.append(FilterChoice(display=label, query_string=f"?{query}", selected=is_selected))
    return SideBarFilter(name=name, title=title, choices=tuple(links))


def _list_outcomes() -> list[tuple[str, str]]:
    outcomes: list[tuple[str, str]] = []
    for outcome in OUTCOMES:
        outcomes.append((outcome, get_outcome_label(outcome)))
    return outcomes


def _list_times(now: datetime) -> Iterator[tuple[str, str]]:
    """Return the beginnings of days, as Django's own filter by dates does. The days are those of
    UTC.
    """
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
    for days, label in ((0, _("Today (UTC)")), (7, _("Past 7 days")), (30, _("Past 30 days"))):
        yield (today - timedelta(days=days)).isoformat(), label


def _list_purposes(used: Collection[str]) -> list[tuple[str, str]]:
    """Return the purposes that the settings name, those of emergencies and exports, and the used
    ones, by label.
    """
    codes = {*EMERGENCY_PURPOSES, *EXPORT_PURPOSES, *used}
    for words in event_words:
        codes |= set(words.list_purposes())
    codes.discard("")
    return sorted(((code, get_purpose_label(code)) for code in codes), key=lambda choice: choice[1])


def _list_actions(selected: str) -> Iterator[tuple[str, str]]:
    """Return groups of actions, then the single actions by label."""
    actions = list_actions()
    disclosures = DISCLOSURE_ACTIONS | get_registered_disclosure_actions()
    sign_ins = []
    for action in actions:
        if action.partition(".")[0] in _SIGN_IN_PREFIXES:
            sign_ins.append(action)
    yield ",".join(sorted(disclosures)), _("Any use of personal data")
    yield ",".join(sign_ins), _("Any sign-in or sign-out")
    if selected and "," not in selected and selected not in actions:
        # The project registered it in the past.
        actions = [*actions, selected]
    yield from sorted(
        ((action, get_action_label(action)) for action in actions), key=lambda choice: choice[1]
    )


def _build_person_filter(parameters: Mapping[str, str], people: People) -> SideBarFilter:
    """Return the part that the selected person has in the events."""
    rest = {}
    for key, value in parameters.items():
        if key not in PERSON_FILTERS:
            rest[key] = value
    account, *subjects = split_list(parameters.get("person", "")) or [""]
    actor = account or parameters.get("actor", "")
    subject = parameters.get("subject", "")
    if subject:
        subjects = subjects or [subject]

    choices: list[tuple[str, dict[str, str]]] = [(_("All"), {})]
    if "person" in parameters:
        person = people.find_actor(account)
        label = _("By or about %(person)s") % {"person": person or account}
        choices.append((label, {"person": parameters["person"]}))
    if actor:
        person = people.find_actor(actor)
        choices.append((_("By %(person)s") % {"person": person or actor}, {"actor": actor}))
    represented = parameters.get("on_behalf_of", "")
    if represented:
        person = people.find_actor(represented)
        label = _("On behalf of %(person)s") % {"person": person or represented}
        choices.append((label, {"on_behalf_of": represented}))
    for uuid in subjects:
        person = people.find_subject(uuid)

        if len(subjects) == 1:
            name = str(person or uuid)
        else:
            name = f"{person or ''} {uuid}".strip()

        choices.append((_("About %(person)s") % {"person": name}, {"subject": uuid}))
    current = {}
    for key in PERSON_FILTERS:
        if key in parameters:
            current[key] = parameters[key]
    links = []
    for label, own in choices:
        query = urlencode({**rest, **own})
        is_selected = own == current
        links.append(FilterChoice(display=label, query_string=f"?{query}", selected=is_selected))
    return SideBarFilter(name="person", title=_("person"), choices=tuple(links))


def describe_filters(filters: EventFilters, people: People) -> Iterator[tuple[str, str]]:
    """Yield the name and the value in words of each used filter. people: the persons that the
    filters name.
    """
    account = filters.person.partition(",")[0]
    if filters.since:
        yield _("From (UTC)"), f"{filters.since:%Y-%m-%d %H:%M:%S}"
    if filters.until:
        yield _("Before (UTC)"), f"{filters.until:%Y-%m-%d %H:%M:%S}"
    if filters.person:
        yield (
            _("Person"),
            _("By or about %(person)s") % {"person": people.find_actor(account) or account},
        )
    if filters.actor:
        yield (
            _("Person"),
            _("By %(person)s") % {"person": people.find_actor(filters.actor) or filters.actor},
        )
    if filters.on_behalf_of:
        represented = people.find_actor(filters.on_behalf_of)
        yield (
            _("Person"),
            _("On behalf of %(person)s") % {"person": represented or filters.on_behalf_of},
        )
    if filters.subject:
        yield (
            _("Person"),
            _("About %(person)s")
            % {"person": people.find_subject(filters.subject) or filters.subject},
        )
    if filters.outcome:
        yield _("Outcome"), get_outcome_label(filters.outcome)
    if filters.purpose:
        yield _("Purpose"), get_purpose_label(filters.purpose)
    if filters.action:
        yield (
            _("Action"),
            ", ".join(get_action_label(action) for action in filters.action.split(",")),
        )
    if filters.search:
        yield _("Search"), filters.search

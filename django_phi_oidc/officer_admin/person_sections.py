"""The sections of the page of a person, each for users with its permission. No value, token or key is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext as _

from .. import conf
from ..access.emergency.models import EmergencyAccess
from ..audit import search
from ..audit.events import Action, NewEvent
from ..audit.recorder import record_many
from ..audit.request_context import Actor
from ..claims.categories import list_hidden_names
from ..claims.models import LegalHold, StoredClaim
from ..errors import AuditUnavailable
from ..fields import MASK
from ..sessions.models import OIDCSession
from ..subjects.models import ActivationCode, PairwiseSubject

APP_LABEL = "django_phi_oidc"
MAX_ROWS = 50
"""Rows of a section: the newest."""
TableRow = tuple[Any, ...]


class AdminLink(NamedTuple):
    """A text with a link to a page."""

    text: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonSection:
    """A section of the page: a table, or the reason why there is none."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[TableRow] = ()
    fault: str = ""
    links: Sequence[AdminLink] = ()
    """Pages with all of its rows."""


def list_viewable_sections(user: Any, person: AbstractBaseUser) -> list[str]:
    """Return the names of the sections that user may view of person."""
    return [name for name, permission in get_section_permissions(person).items() if user.has_perm(permission)]


def get_section_permissions(person: AbstractBaseUser) -> dict[str, str]:
    """Return the permissions in the order of the page."""
    return {
        "subjects": f"{APP_LABEL}.view_pairwisesubject",
        "activation": f"{APP_LABEL}.view_activationcode",
        "roles": f"{person._meta.app_label}.view_{person._meta.model_name}",
        "sessions": f"{APP_LABEL}.view_oidcsession",
        "claims": f"{APP_LABEL}.view_storedclaim",
        "holds": f"{APP_LABEL}.view_legalhold",
        "emergencies": f"{APP_LABEL}.view_emergencyaccess",
        "timeline": f"{APP_LABEL}.view_auditevent",
    }


def get_sections(actor: Actor, person: AbstractBaseUser, *, now: datetime) -> Iterator[PersonSection]:
    """Yield the sections that actor may view. Viewing the timeline is an event, committed before it is yielded."""
    subjects = list(PairwiseSubject.objects.filter(user=person.pk).order_by("pk"))
    for name in list_viewable_sections(actor.user, person):
        if name == "timeline":
            yield _timeline_section(actor, person, subjects, now)
        else:
            title, columns, rows = _SECTION_DEFINITIONS[name]
            yield PersonSection(
                name=name, title=title(), columns=columns(), rows=list(rows(actor.user, person, subjects, now))
            )


def _subject_rows(viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[TableRow]:
    for row in subjects:
        is_unlimited = row.held_until and row.held_until.year == 9999
        held_until = _("until it is released") if is_unlimited else _format_time(row.held_until)
        yield _admin_link(row.uuid, "pairwisesubject", row.pk), row.issuer, _format_time(row.last_seen_at), held_until


def _session_rows(viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[TableRow]:
    columns = ("id", "provider", "started_at", "last_seen_at", "ended_at", "end_reason")
    rows = OIDCSession.objects.filter(user=person.pk).only(*columns)
    live = list(rows.filter(ended_at=None).order_by("-started_at")[:MAX_ROWS])
    for row in [*live, *rows.exclude(ended_at=None).order_by("-started_at")[: MAX_ROWS - len(live)]]:
        ended = f"{_format_time(row.ended_at)}: {row.get_end_reason_display()}" if row.ended_at else _("active")
        started, last_seen = _format_time(row.started_at), _format_time(row.last_seen_at)
        yield _admin_link(row.pk, "oidcsession", row.pk), row.provider, started, last_seen, ended


def _claim_rows(viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[TableRow]:
    is_visible = (Q(subject=subject) & ~Q(name__in=list_hidden_names(viewer, subject)) for subject in subjects)
    rows = StoredClaim.objects.filter(reduce(or_, is_visible, Q(pk__in=[])))
    for row in rows.defer("value").order_by("name", "-pk")[:MAX_ROWS]:
        until = _format_time(row.expires_at) or _("end of the session")
        yield _admin_link(row.name, "storedclaim", row.pk), MASK, row.purpose, _format_time(row.obtained_at), until


def _hold_rows(viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[TableRow]:
    for row in LegalHold.objects.filter(subject__in=subjects).order_by("-placed_at")[:MAX_ROWS]:
        until = _format_time(row.until) or _("until it is released")
        link = _admin_link(row.reason, "legalhold", row.pk)
        yield link, _format_time(row.placed_at), until, _format_time(row.released_at)


def _role_rows(viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[TableRow]:
    # A custom user model may have no groups.
    groups = person.groups.order_by("name").values_list("name", flat=True) if hasattr(person, "groups") else ()
    flags = [flag for flag in ("is_staff", "is_superuser") if getattr(person, flag, False)]
    for kind, names in (("group", groups), ("flag", flags)):
        for name in names:
            yield name, ", ".join(_role_sources(kind, name)) or _("assigned here: no rule manages it")


def _role_sources(kind: str, name: str) -> Iterator[str]:
    for provider, rules in conf.roles().items():
        for number, rule in enumerate(rules):
            if (kind, name) in rule.roles:
                source = _("provider %(provider)s, rule %(number)d: claim %(claim)s")
                claim = " > ".join([rule.claim, *rule.path])
                yield source % {"provider": provider, "number": number, "claim": claim}


def _emergency_rows(viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[TableRow]:
    rows = EmergencyAccess.objects.filter(actor=str(person.pk)).defer("reason", "note").order_by("-opened_at")
    for row in rows[:MAX_ROWS]:
        review = row.get_verdict_display() if row.reviewed_at else _("waits for its review")
        state = review if row.has_ended(now=now) else _("open")
        opened = _admin_link(_format_time(row.opened_at), "emergencyaccess", row.pk)
        yield opened, row.resource, row.purpose, _format_time(row.closed_at or row.expires_at), state


def _activation_code_rows(
    viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime
) -> Iterator[TableRow]:
    for row in ActivationCode.objects.filter(user=person.pk).order_by("-pk")[:MAX_ROWS]:
        ended = (row.redeemed_at and _("redeemed")) or (row.revoked_at and _("revoked"))
        state = ended or (_("waiting") if row.expires_at > now else _("expired"))
        link = _admin_link(row.provider, "activationcode", row.pk)
        yield link, state, _format_time(row.created_at), _format_time(row.expires_at)


def _timeline_section(actor: Actor, person: Any, subjects: Iterable[PairwiseSubject], now: datetime) -> PersonSection:
    """Return the newest events by and about the person, after the event of this view."""
    columns = (_("Time (UTC)"), _("Action"), _("Outcome"), _("Reason"), _("Actor"), _("Purpose"), _("Resource"))
    section: dict[str, Any] = {"name": "timeline", "title": _("Timeline"), "columns": columns}
    uuids = [str(subject.uuid) for subject in subjects]
    list_url = reverse(f"admin:{APP_LABEL}_auditevent_changelist")
    links = [AdminLink(_("All events by this person"), f"{list_url}?{urlencode({'actor': person.pk})}")]
    about = _("All events about %(subject)s")
    links += [AdminLink(about % {"subject": uuid}, f"{list_url}?subject={uuid}") for uuid in uuids]
    detail = {"page": "person", "filters": ["actor", "subject"]}
    view_events = [
        NewEvent(Action.AUDIT_VIEWED, actor.origin, now, subject=uuid, resource=f"user/{person.pk}", detail=detail)
        for uuid in uuids or [""]
    ]
    queries = [search.EventFilters(actor=str(person.pk)), *(search.EventFilters(subject=uuid) for uuid in uuids)]
    try:
        record_many(view_events)
        rows = {row.id: row for filters in queries for row in search.list_events(filters, page_size=MAX_ROWS).rows}
    except AuditUnavailable:
        return PersonSection(**section, fault=_("The audit log is not available, so it is not shown."))
    except search.RowUnreadable:
        return PersonSection(**section, fault=_("An event was altered: “phi_oidc audit verify” identifies it."))
    newest = sorted(rows.values(), key=lambda row: row.id, reverse=True)[:MAX_ROWS]
    table = [
        (
            _admin_link(_format_time(row.occurred_at), "auditevent", row.id),
            *(row.action, row.outcome, row.reason, row.actor, row.purpose, row.resource),
        )
        for row in newest
    ]
    return PersonSection(**section, rows=table, links=links)


def _admin_link(text: object, model: str, pk: object) -> AdminLink:
    return AdminLink(str(text), reverse(f"admin:{APP_LABEL}_{model}_change", args=[pk]))


def _format_time(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


_SectionDefinition = tuple[
    Callable[[], str],
    Callable[[], tuple[str, ...]],
    Callable[[Any, Any, Sequence[PairwiseSubject], datetime], Iterable[TableRow]],
]
_SECTION_DEFINITIONS: dict[str, _SectionDefinition] = {
    "subjects": (
        lambda: _("Subjects"),
        lambda: (_("Subject"), _("Issuer"), _("Last seen (UTC)"), _("Legal hold (UTC)")),
        _subject_rows,
    ),
    "activation": (
        lambda: _("Activation"),
        lambda: (_("Provider"), _("State"), _("Made (UTC)"), _("Until (UTC)")),
        _activation_code_rows,
    ),
    "roles": (lambda: _("Roles"), lambda: (_("Role"), _("Where it comes from")), _role_rows),
    "sessions": (
        lambda: _("Sessions"),
        lambda: (_("Session"), _("Provider"), _("Since (UTC)"), _("Last seen (UTC)"), _("Ended (UTC)")),
        _session_rows,
    ),
    "claims": (
        lambda: _("Claims"),
        lambda: (_("Claim"), _("Value"), _("Purpose"), _("Obtained (UTC)"), _("Until (UTC)")),
        _claim_rows,
    ),
    "holds": (
        lambda: _("Legal holds"),
        lambda: (_("Matter"), _("Placed (UTC)"), _("Until (UTC)"), _("Released (UTC)")),
        _hold_rows,
    ),
    "emergencies": (
        lambda: _("Emergency accesses"),
        lambda: (_("Opened (UTC)"), _("Record"), _("Purpose"), _("Ends (UTC)"), _("State")),
        _emergency_rows,
    ),
}

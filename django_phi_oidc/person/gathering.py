"""What the page of a person shows: each part for whoever may see it. No value, token or key is read."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.contrib.auth.base_user import AbstractBaseUser
from django.urls import reverse
from django.utils.translation import gettext as _

from .. import conf
from ..access.models import EmergencyAccess
from ..audit import browsing
from ..audit.events import Act, Action
from ..audit.models import AuditEvent
from ..audit.recording import record_many
from ..audit.request import Actor
from ..claims.models import LegalHold, StoredClaim
from ..errors import AuditUnavailable
from ..fields import MASK
from ..sessions.models import OIDCSession
from ..subjects.models import ActivationCode, PairwiseSubject

APP = "django_phi_oidc"
MOST = 50
"""Rows of a part: the newest."""
Cells = tuple[Any, ...]


class Link(NamedTuple):
    """A text that leads to a page."""

    text: str
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the page: a table, or a word on why there is none."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[Cells] = ()
    fault: str = ""
    more: Sequence[Link] = ()
    """Where all of it is."""


def may_view(user: Any, person: AbstractBaseUser) -> list[str]:
    """Return the names of the parts that user may see of person."""
    return [name for name, permission in permissions(person).items() if user.has_perm(permission)]


def permissions(person: AbstractBaseUser) -> dict[str, str]:
    """Return what somebody needs to see each part, by its name, in the order of the page."""
    return {
        "subjects": f"{APP}.view_pairwisesubject",
        "activation": f"{APP}.view_activationcode",
        "roles": f"{person._meta.app_label}.view_{person._meta.model_name}",
        "sessions": f"{APP}.view_oidcsession",
        "claims": f"{APP}.view_storedclaim",
        "holds": f"{APP}.view_legalhold",
        "emergencies": f"{APP}.view_emergencyaccess",
        "timeline": f"{APP}.view_auditevent",
    }


def gather(actor: Actor, person: AbstractBaseUser, *, now: datetime) -> Iterator[Section]:
    """Yield the parts that actor may see. The timeline's look is an event, committed before it is yielded."""
    subjects = list(PairwiseSubject.objects.filter(user=person.pk).order_by("pk"))
    for name in may_view(actor.user, person):
        if name == "timeline":
            yield _timeline(actor, person, subjects, now=now)
        else:
            title, columns, rows = _PARTS[name]
            yield Section(name=name, title=title(), columns=columns(), rows=list(rows(person, subjects, now)))


def _subjects(person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[Cells]:
    for each in subjects:
        held = _("until it is released") if each.held_until and each.held_until.year == 9999 else _at(each.held_until)
        yield _link(each.uuid, "pairwisesubject", each.pk), each.issuer, _at(each.last_seen_at), held


def _sessions(person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[Cells]:
    shown = ("id", "provider", "started_at", "last_seen_at", "ended_at", "end_reason")
    rows = OIDCSession.objects.filter(user=person.pk).only(*shown)
    live = list(rows.filter(ended_at=None).order_by("-started_at")[:MOST])
    for row in [*live, *rows.exclude(ended_at=None).order_by("-started_at")[: MOST - len(live)]]:
        ended = f"{_at(row.ended_at)}: {row.get_end_reason_display()}" if row.ended_at else _("lives")
        yield _link(row.pk, "oidcsession", row.pk), row.provider, _at(row.started_at), _at(row.last_seen_at), ended


def _claims(person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[Cells]:
    for row in StoredClaim.objects.filter(subject__in=subjects).defer("value").order_by("name", "-pk")[:MOST]:
        until = _at(row.expires_at) or _("end of the session")
        yield _link(row.name, "storedclaim", row.pk), MASK, row.purpose, _at(row.obtained_at), until


def _holds(person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[Cells]:
    for row in LegalHold.objects.filter(subject__in=subjects).order_by("-placed_at")[:MOST]:
        until = _at(row.until) or _("until it is released")
        yield _link(row.reason, "legalhold", row.pk), _at(row.placed_at), until, _at(row.released_at)


def _roles(person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[Cells]:
    """A user model without groups has none."""
    groups = person.groups.order_by("name").values_list("name", flat=True) if hasattr(person, "groups") else ()
    flags = [flag for flag in ("is_staff", "is_superuser") if getattr(person, flag, False)]
    for kind, names in (("group", groups), ("flag", flags)):
        for name in names:
            yield name, ", ".join(_givers(kind, name)) or _("given here: no rule manages it")


def _givers(kind: str, name: str) -> Iterator[str]:
    for provider, rules in conf.roles().items():
        for number, rule in enumerate(rules):
            if (kind, name) in rule.roles:
                told = _("provider %(provider)s, rule %(number)d: claim %(claim)s")
                claim = " > ".join([rule.claim, *rule.path])
                yield told % {"provider": provider, "number": number, "claim": claim}


def _emergencies(person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[Cells]:
    rows = EmergencyAccess.objects.filter(actor=str(person.pk)).defer("reason", "note").order_by("-opened_at")
    for row in rows[:MOST]:
        waiting = row.get_verdict_display() if row.reviewed_at else _("waits for its review")
        state = waiting if row.is_over(now=now) else _("open")
        opened = _link(_at(row.opened_at), "emergencyaccess", row.pk)
        yield opened, row.resource, row.purpose, _at(row.closed_at or row.expires_at), state


def _activation(person: Any, subjects: Sequence[PairwiseSubject], now: datetime) -> Iterator[Cells]:
    for row in ActivationCode.objects.filter(user=person.pk).order_by("-pk")[:MOST]:
        ended = (row.redeemed_at and _("redeemed")) or (row.revoked_at and _("revoked"))
        state = ended or (_("waiting") if row.expires_at > now else _("expired"))
        yield _link(row.provider, "activationcode", row.pk), state, _at(row.created_at), _at(row.expires_at)


def _timeline(actor: Actor, person: Any, subjects: Sequence[PairwiseSubject], *, now: datetime) -> Section:
    """Return what the person did, and what was done about them: the newest events, after that of this look."""
    columns = (_("Time (UTC)"), _("Action"), _("Outcome"), _("Reason"), _("Actor"), _("Purpose"), _("Resource"))
    told: dict[str, Any] = {"name": "timeline", "title": _("Timeline"), "columns": columns}
    uuids = [str(each.uuid) for each in subjects]
    trail = reverse(f"admin:{APP}_auditevent_changelist")
    more = [Link(_("Every event by this person"), f"{trail}?{urlencode({'actor': person.pk})}")]
    for each in uuids:
        more.append(Link(_("Every event about %(subject)s") % {"subject": each}, f"{trail}?subject={each}"))
    detail = {"page": "person", "filters": ["actor", "subject"]}
    looks = [
        Act(Action.AUDIT_VIEWED, actor.origin, now, subject=each, resource=f"user/{person.pk}", detail=detail)
        for each in uuids or [""]
    ]
    asked = [browsing.Filters(actor=str(person.pk)), *(browsing.Filters(subject=each) for each in uuids)]
    try:
        record_many(looks)
        found = {row.id: row for filters in asked for row in browsing.page(filters, size=MOST).rows}
    except AuditUnavailable:
        return Section(**told, fault=_("The trail is not available, so nothing of it is shown."))
    except browsing.RowUnreadable:
        return Section(**told, fault=_("An event here was altered: “phi_oidc audit verify” tells which it is."))
    newest = sorted(found.values(), key=lambda row: row.id, reverse=True)[:MOST]
    return Section(**told, rows=[_told(row) for row in newest], more=more)


def _told(row: AuditEvent) -> Cells:
    at = _link(_at(row.occurred_at), "auditevent", row.id)
    return at, row.action, row.outcome, row.reason, row.actor, row.purpose, row.resource


def _link(text: object, model: str, pk: object) -> Link:
    return Link(str(text), reverse(f"admin:{APP}_{model}_change", args=[pk]))


def _at(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}" if moment else ""


_Part = tuple[
    Callable[[], str],
    Callable[[], tuple[str, ...]],
    Callable[[Any, Sequence[PairwiseSubject], datetime], Iterable[Cells]],
]
_PARTS: dict[str, _Part] = {
    "subjects": (
        lambda: _("Subjects"),
        lambda: (_("Subject"), _("Issuer"), _("Last seen (UTC)"), _("Legal hold (UTC)")),
        _subjects,
    ),
    "activation": (
        lambda: _("Activation"),
        lambda: (_("Provider"), _("State"), _("Made (UTC)"), _("Until (UTC)")),
        _activation,
    ),
    "roles": (lambda: _("Roles"), lambda: (_("Role"), _("Where it comes from")), _roles),
    "sessions": (
        lambda: _("Sessions"),
        lambda: (_("Session"), _("Provider"), _("Since (UTC)"), _("Last seen (UTC)"), _("Ended (UTC)")),
        _sessions,
    ),
    "claims": (
        lambda: _("Claims"),
        lambda: (_("Claim"), _("Value"), _("Purpose"), _("Obtained (UTC)"), _("Until (UTC)")),
        _claims,
    ),
    "holds": (
        lambda: _("Legal holds"),
        lambda: (_("Matter"), _("Placed (UTC)"), _("Until (UTC)"), _("Released (UTC)")),
        _holds,
    ),
    "emergencies": (
        lambda: _("Emergency accesses"),
        lambda: (_("Opened (UTC)"), _("Record"), _("Purpose"), _("Ends (UTC)"), _("State")),
        _emergencies,
    ),
}

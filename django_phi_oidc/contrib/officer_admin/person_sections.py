"""The sections of the page of a person, each for users with its permission. No value, token or key
is read.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import pgettext

from ... import conf
from ..._internal.admin_columns import AdminLink
from ...audit import search
from ...audit.admin.event_table import EventTableRow, build_event_table, find_people_of_events
from ...audit.descriptions import get_purpose_label
from ...audit.events import Action, NewEvent
from ...audit.recorder import record_many
from ...audit.request_context import Actor
from ...claims.categories import list_hidden_names
from ...claims.models import NO_SESSION, StoredClaim, get_claim_label
from ...errors import AuditUnavailable
from ...fields import MASK
from ...provider.labels import get_provider_label
from ...sessions.models import OIDCSession
from ...sessions.sign_in_places import get_device_label
from ...subjects.models import PairwiseSubject
from ..emergency.models import EmergencyAccess
from ..invitations.models import ActivationCode
from ..legal_holds.models import LegalHold

MAX_ROWS = 50
"""Rows of a section: the newest."""
MAX_EVENTS = 25
"""Events of a list of the timeline: the newest."""
TableRow = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineList:
    """A list of the timeline: the events by the person, or about the person."""

    name: str
    title: str
    rows: Sequence[EventTableRow]
    links: Sequence[AdminLink]
    """Pages with all events of the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonSection:
    """A section of the page: a table, or the lists of the timeline, or the reason why there is
    none.
    """

    name: str
    title: str
    columns: tuple[str, ...] = ()
    rows: Sequence[TableRow] = ()
    fault: str = ""
    timeline: Sequence[TimelineList] = ()
    unavailable_actions: frozenset[str] = frozenset()
    """Actions that have nothing to do, judging by the rows."""
    live_count: int = 0
    """Of sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _SectionRows:
    """The rows of a section, and what they say about the actions."""

    rows: Sequence[TableRow]
    unavailable_actions: frozenset[str] = frozenset()
    live_count: int = 0


def list_viewable_sections(user: Any, person: AbstractBaseUser) -> list[str]:
    """Return the names of the sections that user may view of person."""
    return [
        name
        for name, permission in get_section_permissions(person).items()
        if user.has_perm(permission)
    ]


def get_section_permissions(person: AbstractBaseUser) -> dict[str, str]:
    """Return the permissions in the order of the page."""
    return {
        "subjects": "django_phi_oidc.view_pairwisesubject",
        "activation": "phi_oidc_invitations.view_activationcode",
        "roles": f"{person._meta.app_label}.view_{person._meta.model_name}",
        "sessions": "django_phi_oidc.view_oidcsession",
        "claims": "django_phi_oidc.view_storedclaim",
        "holds": "phi_oidc_legal_holds.view_legalhold",
        "emergencies": "phi_oidc_emergency.view_emergencyaccess",
        "timeline": "phi_oidc_audit.view_auditevent",
    }


def get_sections(
    actor: Actor, person: AbstractBaseUser, *, now: datetime
) -> Iterator[PersonSection]:
    """Yield the sections that actor may view. Viewing the timeline is an event, committed before it
    is yielded.
    """
    subjects = list(PairwiseSubject.objects.filter(user=person.pk).order_by("pk"))
    for name in list_viewable_sections(actor.user, person):
        if name == "timeline":
            yield _timeline_section(actor, person, subjects, now)
            continue
        title, columns, list_rows = _SECTION_DEFINITIONS[name]
        content = list_rows(actor.user, person, subjects, now)
        yield PersonSection(
            name=name,
            title=title(),
            columns=columns(),
            rows=content.rows,
            unavailable_actions=content.unavailable_actions,
            live_count=content.live_count,
        )


def _subject_rows(
    viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime
) -> _SectionRows:
    rows = []
    for row in subjects:
        is_unlimited = row.held_until and row.held_until.year == 9999
        if is_unlimited:
            held_until = _("until it is released")
        else:
            held_until = _format_time(row.held_until)

        link = _admin_link(row.issuer, "django_phi_oidc_pairwisesubject", row.pk)
        rows.append(
            (link, _format_time(row.first_seen_at), _format_time(row.last_seen_at), held_until)
        )
    return _SectionRows(rows=rows)


def _session_rows(
    viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime
) -> _SectionRows:
    columns = (
        "id",
        "browser",
        "platform",
        "provider",
        "started_at",
        "last_seen_at",
        "ended_at",
        "end_reason",
    )
    sessions = OIDCSession.objects.filter(user=person.pk).only(*columns)
    live = list(sessions.filter(ended_at=None).order_by("-started_at")[:MAX_ROWS])
    rows = []
    for row in [
        *live,
        *sessions.exclude(ended_at=None).order_by("-started_at")[: MAX_ROWS - len(live)],
    ]:
        ended = pgettext("session", "active")
        if row.ended_at is not None:
            ended = f"{_format_time(row.ended_at)}: {row.get_end_reason_display()}"
        started = _format_time(row.started_at)
        last_seen = _format_time(row.last_seen_at)
        link = _admin_link(
            get_device_label(row.browser, row.platform), "django_phi_oidc_oidcsession", row.pk
        )
        rows.append((link, get_provider_label(row.provider), started, last_seen, ended))
    return _SectionRows(rows=rows, live_count=len(live), unavailable_actions=_unless(live, "end"))


def _claim_rows(
    viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime
) -> _SectionRows:
    hidden = {subject.pk: list_hidden_names(viewer, subject) for subject in subjects}
    is_visible = (Q(subject=subject) & ~Q(name__in=hidden[subject.pk]) for subject in subjects)
    claims = (
        StoredClaim.objects.filter(reduce(or_, is_visible, Q(pk__in=[])))
        .defer("value")
        .order_by("name", "-pk")
    )
    found = list(claims[:MAX_ROWS])
    rows = []
    for row in found:
        until = _format_time(row.expires_at) or _("end of the session")
        purpose = get_purpose_label(row.purpose)
        obtained = _format_time(row.obtained_at)
        rows.append(
            (
                _admin_link(get_claim_label(row.name), "django_phi_oidc_storedclaim", row.pk),
                MASK,
                purpose,
                obtained,
                until,
            )
        )
    # Claims that the viewer may not see could be erased, too: then the button must not show whether
    # there are any.
    has_more = len(found) == MAX_ROWS
    erasable = found or any(hidden.values())
    revealable = has_more or any(
        row.session == NO_SESSION and row.name in conf.claims() for row in found
    )
    return _SectionRows(
        rows=rows, unavailable_actions=_unless(erasable, "scrub") | _unless(revealable, "reveal")
    )


def _hold_rows(
    viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime
) -> _SectionRows:
    found = list(LegalHold.objects.filter(subject__in=subjects).order_by("-placed_at")[:MAX_ROWS])
    rows = []
    for row in found:
        until = _format_time(row.until) or _("until it is released")
        link = _admin_link(row.reason, "phi_oidc_legal_holds_legalhold", row.pk)
        rows.append((link, _format_time(row.placed_at), until, _format_time(row.released_at)))
    is_active = any(
        row.released_at is None and (row.until is None or row.until > now) for row in found
    )
    unavailable = _unless(is_active or len(found) == MAX_ROWS, "release", "disclose") | _unless(
        subjects, "hold"
    )
    return _SectionRows(rows=rows, unavailable_actions=unavailable)


def _role_rows(
    viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime
) -> _SectionRows:
    # A custom user model may have no groups.
    if hasattr(person, "groups"):
        groups = person.groups.order_by("name").values_list("name", flat=True)
    else:
        groups = ()

    flags = [flag for flag in ("is_staff", "is_superuser") if getattr(person, flag, False)]
    rows = [
        (name, ", ".join(_role_sources(kind, name)) or _("assigned here: no rule manages it"))
        for kind, names in (("group", groups), ("flag", flags))
        for name in names
    ]
    return _SectionRows(rows=rows)


def _role_sources(kind: str, name: str) -> Iterator[str]:
    for provider, rules in conf.roles().items():
        for number, rule in enumerate(rules):
            if (kind, name) in rule.roles:
                source = _("provider %(provider)s, rule %(number)d: claim %(claim)s")
                claim = " > ".join([rule.claim, *rule.path])
                yield source % {"provider": provider, "number": number, "claim": claim}


def _emergency_rows(
    viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime
) -> _SectionRows:
    emergencies = (
        EmergencyAccess.objects.filter(actor=str(person.pk))
        .defer("reason", "note")
        .order_by("-opened_at")
    )
    rows = []
    is_open = False
    for row in emergencies[:MAX_ROWS]:
        if row.reviewed_at:
            review = row.get_verdict_display()
        else:
            review = _("waits for its review")

        has_ended = row.has_ended(now=now)
        is_open = is_open or not has_ended
        opened = _admin_link(
            _format_time(row.opened_at), "phi_oidc_emergency_emergencyaccess", row.pk
        )
        ends = row.closed_at or row.expires_at
        purpose = get_purpose_label(row.purpose)
        rows.append(
            (opened, row.resource, purpose, _format_time(ends), review if has_ended else _("open"))
        )
    return _SectionRows(
        rows=rows, unavailable_actions=_unless(is_open or len(rows) == MAX_ROWS, "close")
    )


def _activation_code_rows(
    viewer: Any, person: Any, subjects: Sequence[PairwiseSubject], now: datetime
) -> _SectionRows:
    rows = []
    is_redeemable = False
    for row in ActivationCode.objects.filter(user=person.pk).order_by("-pk")[:MAX_ROWS]:
        ended = (row.redeemed_at and _("redeemed")) or (row.revoked_at and _("revoked"))
        state = ended or (_("waiting") if row.expires_at > now else _("expired"))
        is_redeemable = is_redeemable or (not ended and row.expires_at > now)
        link = _admin_link(
            get_provider_label(row.provider), "phi_oidc_invitations_activationcode", row.pk
        )
        rows.append((link, state, _format_time(row.created_at), _format_time(row.expires_at)))
    has_invitations = any(
        provider.provisioning == "invitation" for provider in conf.providers().values()
    )
    unavailable = _unless(is_redeemable or len(rows) == MAX_ROWS, "withdraw") | _unless(
        has_invitations, "invite"
    )
    return _SectionRows(rows=rows, unavailable_actions=unavailable)


def _unless(condition: object, *actions: str) -> frozenset[str]:
    if condition:
        return frozenset()
    return frozenset(actions)


def _timeline_section(
    actor: Actor, person: Any, subjects: Iterable[PairwiseSubject], now: datetime
) -> PersonSection:
    """Return the newest events by and about the person, after the event of this view."""
    title = _("Timeline")
    uuids = [str(subject.uuid) for subject in subjects]
    detail = {"page": "person", "filters": ["actor", "subject"]}
    view_events = [
        NewEvent(
            Action.AUDIT_VIEWED,
            actor.origin,
            now,
            subject=uuid,
            resource=f"user/{person.pk}",
            detail=detail,
        )
        for uuid in uuids or [""]
    ]
    try:
        record_many(view_events)
        own = search.list_events(
            search.EventFilters(actor=str(person.pk)), page_size=MAX_EVENTS
        ).rows
        about = [
            row
            for uuid in uuids
            for row in search.list_events(
                search.EventFilters(subject=uuid), page_size=MAX_EVENTS
            ).rows
        ]
    except AuditUnavailable:
        return PersonSection(
            name="timeline",
            title=title,
            fault=_("The audit log is not available, so it is not shown."),
        )
    except search.RowUnreadable:
        return PersonSection(
            name="timeline",
            title=title,
            fault=_("An event was altered: “phi_oidc audit verify” identifies it."),
        )
    about = sorted(about, key=lambda row: row.id, reverse=True)[:MAX_EVENTS]
    people = find_people_of_events([*own, *about])
    list_url = reverse("admin:phi_oidc_audit_auditevent_changelist")
    by_link = AdminLink(
        _("All events by this person"), f"{list_url}?{urlencode({'actor': person.pk})}"
    )

    if len(uuids) == 1:
        about_text = _("All events about this person")
    else:
        about_text = _("All events about %(subject)s")

    about_links = [
        AdminLink(about_text % {"subject": uuid}, f"{list_url}?subject={uuid}") for uuid in uuids
    ]
    by = TimelineList(
        name="by", title=_("By this person"), rows=build_event_table(own, people), links=[by_link]
    )
    of = TimelineList(
        name="about",
        title=_("About this person"),
        rows=build_event_table(about, people),
        links=about_links,
    )
    return PersonSection(name="timeline", title=title, timeline=(by, of))


def _admin_link(text: object, url_prefix: str, pk: object) -> AdminLink:
    """url_prefix: label of the app and name of the model, as in the names of the admin's URLs."""
    return AdminLink(str(text), reverse(f"admin:{url_prefix}_change", args=[pk]))


def _format_time(moment: datetime | None) -> str:
    if moment:
        return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return ""


_SectionDefinition = tuple[
    Callable[[], str],
    Callable[[], tuple[str, ...]],
    Callable[[Any, Any, Sequence[PairwiseSubject], datetime], _SectionRows],
]
_SECTION_DEFINITIONS: dict[str, _SectionDefinition] = {
    "subjects": (
        lambda: _("Subjects"),
        lambda: (_("Issuer"), _("First seen (UTC)"), _("Last seen (UTC)"), _("Legal hold (UTC)")),
        _subject_rows,
    ),
    "activation": (
        lambda: _("Activation"),
        lambda: (_("Provider"), _("State"), _("Made (UTC)"), _("Until (UTC)")),
        _activation_code_rows,
    ),
    "roles": (lambda: _("Roles"), lambda: (_("Role"), _("Where it comes from")), _role_rows),
    "sessions": (
        lambda: pgettext("of a person", "Sessions"),
        lambda: (
            _("Device"),
            _("Provider"),
            _("Since (UTC)"),
            _("Last seen (UTC)"),
            _("Ended (UTC)"),
        ),
        _session_rows,
    ),
    "claims": (
        lambda: _("Claims"),
        lambda: (_("Claim"), _("Value"), _("Purpose"), _("Obtained (UTC)"), _("Until (UTC)")),
        _claim_rows,
    ),
    "holds": (
        lambda: _("Legal holds"),
        lambda: (_("Case reference"), _("Placed (UTC)"), _("Until (UTC)"), _("Released (UTC)")),
        _hold_rows,
    ),
    "emergencies": (
        lambda: _("Emergency accesses"),
        lambda: (_("Opened (UTC)"), _("Record"), _("Purpose"), _("Ends (UTC)"), _("State")),
        _emergency_rows,
    ),
}

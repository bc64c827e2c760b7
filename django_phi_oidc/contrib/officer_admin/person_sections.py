"""The sections of the page of a person, each for users with its permission. No value, token or key
is read.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any
from urllib.parse import urlencode

from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, pgettext, pgettext_lazy

from ... import conf
from ..._internal.admin_columns import AdminLink, format_utc
from ...access.roles import ACCOUNT_FLAGS, AccountFlag, Role
from ...audit import search
from ...audit.admin.event_table import EventTableRow, build_event_table, find_people_of_events
from ...audit.descriptions import get_purpose_label
from ...audit.events import Action, NewEvent
from ...audit.models import AuditEvent
from ...audit.recorder import record_many
from ...audit.request_context import Actor
from ...claims.categories import list_hidden_names
from ...claims.models import NO_SESSION, StoredClaim, get_claim_label
from ...errors import AuditUnavailable
from ...extensions import role_sources
from ...fields import MASK
from ...provider.labels import get_provider_label
from ...sessions.models import OIDCSession
from ...sessions.sign_in_places import get_device_label
from ...subjects.models import PairwiseSubject
from ..common.person_page_parts import build_admin_link, list_unavailable
from ..common.person_pages import (
    MAX_ROWS,
    PersonSection,
    SectionContent,
    SectionRequest,
    person_sections,
)

MAX_EVENTS = 25
"""Events of a list of the timeline: the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineList:
    """A list of the timeline: the events by the person, or about the person."""

    name: str
    title: str
    rows: Sequence[EventTableRow]
    links: Sequence[AdminLink]
    """Pages with all events of the list."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSection:
    """A section, and what it shows to one viewer."""

    section: PersonSection
    content: SectionContent

    @property
    def name(self) -> str:
        return self.section.name


def list_viewable_sections(user: Any) -> list[PersonSection]:
    """Return the sections that user may view, in the order of the page."""
    viewable = []
    for section in person_sections:
        if user.has_perm(section.permission):
            viewable.append(section)
    return sorted(viewable, key=attrgetter("position"))


def show_sections(
    actor: Actor, person: AbstractBaseUser, *, now: datetime
) -> Iterator[ShownSection]:
    """Yield the sections that actor may view. Viewing the timeline is an event, committed before it
    is yielded.
    """
    subjects = list(PairwiseSubject.objects.filter(user=person.pk).order_by("pk"))
    request = SectionRequest(actor=actor, person=person, subjects=subjects, now=now)
    for section in list_viewable_sections(actor.user):
        yield ShownSection(section=section, content=section.build(request))


def build_subjects(request: SectionRequest) -> SectionContent:
    """Return the subjects that are linked to the person."""
    rows = []
    for row in request.subjects:
        is_unlimited = row.held_until and row.held_until.year == 9999
        if is_unlimited:
            held_until = _("until it is released")
        else:
            held_until = format_utc(row.held_until)

        link = build_admin_link(row.issuer, "django_phi_oidc_pairwisesubject", row.pk)
        rows.append((link, format_utc(row.first_seen_at), format_utc(row.last_seen_at), held_until))
    return SectionContent(rows=rows)


def build_roles(request: SectionRequest) -> SectionContent:
    """Return the groups and flags of the account."""
    # A custom user model may have no groups.
    if hasattr(request.person, "groups"):
        groups = request.person.groups.order_by("name").values_list("name", flat=True)
    else:
        groups = ()

    flags: list[AccountFlag] = []
    for flag in ACCOUNT_FLAGS:
        if getattr(request.person, flag, False):
            flags.append(flag)
    roles = [Role("group", name) for name in groups]
    roles += [Role("flag", flag) for flag in flags]
    rows = []
    for role in roles:
        reasons: list[str] = []
        for source in role_sources:
            reasons.extend(source.explain_role(role))
        rows.append((role.name, ", ".join(reasons) or _("assigned here: no rule manages it")))
    return SectionContent(rows=rows)


def build_sessions(request: SectionRequest) -> SectionContent:
    """Return the live sessions, then those that ended last."""
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
    sessions = OIDCSession.objects.filter(user=request.person.pk).only(*columns)
    live = list(sessions.filter(ended_at=None).order_by("-started_at")[:MAX_ROWS])
    rows = []
    for row in [
        *live,
        *sessions.exclude(ended_at=None).order_by("-started_at")[: MAX_ROWS - len(live)],
    ]:
        ended = pgettext("session", "active")
        if row.ended_at is not None:
            ended = f"{format_utc(row.ended_at)}: {row.get_end_reason_display()}"
        started = format_utc(row.started_at)
        last_seen = format_utc(row.last_seen_at)
        link = build_admin_link(
            get_device_label(row.browser, row.platform), "django_phi_oidc_oidcsession", row.pk
        )
        rows.append((link, get_provider_label(row.provider), started, last_seen, ended))
    return SectionContent(
        rows=rows, live_count=len(live), unavailable_actions=list_unavailable(live, "end")
    )


def build_claims(request: SectionRequest) -> SectionContent:
    """Return the stored claims, except those whose existence the viewer may not see."""
    hidden = {}
    for subject in request.subjects:
        hidden[subject.pk] = list_hidden_names(request.actor.user, subject)
    is_visible = Q(pk__in=[])
    for subject in request.subjects:
        is_visible |= Q(subject=subject) & ~Q(name__in=hidden[subject.pk])
    claims = StoredClaim.objects.filter(is_visible).defer("value").order_by("name", "-pk")
    found = list(claims[:MAX_ROWS])
    rows = []
    for row in found:
        until = format_utc(row.expires_at) or _("end of the session")
        purpose = get_purpose_label(row.purpose)
        obtained = format_utc(row.obtained_at)
        rows.append(
            (
                build_admin_link(get_claim_label(row.name), "django_phi_oidc_storedclaim", row.pk),
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
    revealable = has_more or any(_is_revealable(row) for row in found)
    return SectionContent(
        rows=rows,
        unavailable_actions=list_unavailable(erasable, "scrub")
        | list_unavailable(revealable, "reveal"),
    )


def _is_revealable(claim: StoredClaim) -> bool:
    return claim.session == NO_SESSION and claim.name in conf.claims()


def build_timeline(request: SectionRequest) -> SectionContent:
    """Return the newest events by and about the person, after the event of this view."""
    person = request.person
    uuids = [str(subject.uuid) for subject in request.subjects]
    detail = {"page": "person", "filters": ["actor", "subject"]}
    view_events = []
    for uuid in uuids or [""]:
        view_events.append(
            NewEvent(
                Action.AUDIT_VIEWED,
                request.actor.origin,
                request.now,
                subject=uuid,
                resource=f"user/{person.pk}",
                detail=detail,
            )
        )
    try:
        record_many(view_events)
        own = search.list_events(
            search.EventFilters(actor=str(person.pk)), page_size=MAX_EVENTS
        ).rows
        about = list[AuditEvent]()
        for uuid in uuids:
            filters = search.EventFilters(subject=uuid)
            about.extend(search.list_events(filters, page_size=MAX_EVENTS).rows)
    except AuditUnavailable:
        return SectionContent(fault=_("The audit log is not available, so it is not shown."))
    except search.RowUnreadable:
        return SectionContent(
            fault=_("An event was altered: “phi_oidc audit verify” identifies it.")
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

    about_links = []
    for uuid in uuids:
        about_links.append(AdminLink(about_text % {"subject": uuid}, f"{list_url}?subject={uuid}"))
    by = TimelineList(
        name="by", title=_("By this person"), rows=build_event_table(own, people), links=[by_link]
    )
    of = TimelineList(
        name="about",
        title=_("About this person"),
        rows=build_event_table(about, people),
        links=about_links,
    )
    return SectionContent(timeline=(by, of))


def get_account_view_permission() -> str:
    """Return the permission to view the accounts, whose model the project chooses."""
    accounts = get_user_model()._meta
    return f"{accounts.app_label}.view_{accounts.model_name}"


SECTIONS = (
    PersonSection(
        name="subjects",
        position=10,
        permission="django_phi_oidc.view_pairwisesubject",
        title=gettext_lazy("Subjects"),
        columns=(
            gettext_lazy("Issuer"),
            gettext_lazy("First seen (UTC)"),
            gettext_lazy("Last seen (UTC)"),
            gettext_lazy("Legal hold (UTC)"),
        ),
        build=build_subjects,
    ),
    PersonSection(
        name="roles",
        position=30,
        permission=get_account_view_permission(),
        title=gettext_lazy("Roles"),
        columns=(gettext_lazy("Role"), gettext_lazy("Where it comes from")),
        build=build_roles,
    ),
    PersonSection(
        name="sessions",
        position=40,
        permission="django_phi_oidc.view_oidcsession",
        title=pgettext_lazy("of a person", "Sessions"),
        columns=(
            gettext_lazy("Device"),
            gettext_lazy("Provider"),
            gettext_lazy("Since (UTC)"),
            gettext_lazy("Last seen (UTC)"),
            gettext_lazy("Ended (UTC)"),
        ),
        build=build_sessions,
    ),
    PersonSection(
        name="claims",
        position=50,
        permission="django_phi_oidc.view_storedclaim",
        title=gettext_lazy("Claims"),
        columns=(
            gettext_lazy("Claim"),
            gettext_lazy("Value"),
            gettext_lazy("Purpose"),
            gettext_lazy("Obtained (UTC)"),
            gettext_lazy("Until (UTC)"),
        ),
        build=build_claims,
    ),
    PersonSection(
        name="timeline",
        position=80,
        permission="phi_oidc_audit.view_auditevent",
        title=gettext_lazy("Timeline"),
        columns=(),
        build=build_timeline,
    ),
)
"""The sections of the core and of the audit log. Each other app registers its own."""

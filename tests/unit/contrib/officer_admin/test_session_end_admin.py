"""End the sessions of a provider, a group or a person in the admin: permissions, numbers, progress, and the list."""

import html
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import parse_detail
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.officer_admin import session_end_jobs
from django_phi_oidc.contrib.officer_admin.models import SessionEndJob
from django_phi_oidc.contrib.officer_admin.tasks import run_session_end_jobs
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.sessions.tasks import sweep_revocations
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.session_fixtures import NOW, ScriptedOP, SignedIn, answering, op, sign_in  # noqa: F401 -- fixtures

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
JOBS = "/admin/phi_oidc_officer_admin/sessionendjob/"
ADD = f"{JOBS}add/"
BOTH = ("view_oidcsession", "end_many_oidcsessions")
SignIn = Callable[..., SignedIn]
AdminOf = Callable[..., Client]
time = [NOW]


@pytest.fixture(autouse=True)
def _at_noon() -> Iterator[None]:
    time[0] = NOW
    with clock.override_clock(lambda: time[0]):
        yield


@pytest.fixture
def admin_with(sign_in: SignIn) -> AdminOf:
    """Return a function that signs in a member of staff with these permissions, at another provider."""

    def admin_with(*permissions: str) -> Client:
        signed_in = sign_in()
        user: Any = signed_in.user
        user.is_staff = True
        user.save(update_fields=["is_staff"])
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        OIDCSession.objects.filter(pk=signed_in.session.pk).update(provider="staff")
        client: Any = signed_in.client()
        client.user, client.session_id = user, signed_in.session.pk
        return client  # type: ignore[no-any-return]

    return admin_with


def text_of(page: Any) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.content.decode())).split())


def live() -> set[Any]:
    return set(OIDCSession.objects.live().filter(provider="default").values_list("pk", flat=True))


def recorded(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action).order_by("id"))


def confirmed(people: int, **selection: Any) -> dict[str, Any]:
    """Return the form data that ends these sessions. people: the number that is typed."""
    return {**selection, "reason": "incident", "people": people}


@pytest.mark.parametrize(
    "permissions", [(), ("view_oidcsession",), ("end_many_oidcsessions",), ("view_oidcsession", "end_oidcsession")]
)
def test_each_page_needs_both_permissions_and_refusals_are_recorded(
    permissions: tuple[str, ...], op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf
) -> None:
    sign_in()
    permitted, client = admin_with(*BOTH), admin_with(*permissions)
    job = SessionEndJob.objects.create(id=sign_in().session.pk, requested_by="7", requested_at=NOW)
    selection = {"provider": "default"}
    data = confirmed(2, **selection)
    requests = [
        lambda: client.get(JOBS),
        lambda: client.get(ADD, selection),
        lambda: client.post(ADD, data),
        lambda: client.get(f"{JOBS}{job.pk}/change/"),
        lambda: client.get(f"{JOBS}{job.pk}/continue/"),
        lambda: client.post(f"{JOBS}{job.pk}/continue/"),
    ]
    for number, request in enumerate(requests, start=1):
        assert request().status_code == 403
        refused = recorded("access.denied")
        assert (len(refused), refused[-1].reason) == (number, "permission_missing")
        assert refused[-1].actor == str(client.user.pk)  # type: ignore[attr-defined]
    assert (len(live()), recorded("session.end_requested")) == (2, [])
    assert [permitted.get(url).status_code for url in (JOBS, ADD, f"{JOBS}{job.pk}/change/")] == [200] * 3
    assert permitted.post(ADD, data).status_code == 302
    assert (live(), len(recorded("session.end_requested"))) == (set(), 1)


def test_number_of_sessions_is_shown_before_they_are_ended(
    op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf
) -> None:
    client, person = admin_with(*BOTH), sign_in()
    group = Group.objects.create(name="Ward 7")
    person.user.groups.add(group)  # type: ignore[attr-defined]
    sign_in()
    for selection, number in (
        ({"provider": "default"}, "2 live sessions They are the sessions of 2 people."),
        ({"group": group.pk}, "1 live session They are the sessions of 1 person."),
        ({"user": person.user.pk}, "1 live session"),
        ({"group": group.pk, "provider": "default"}, "1 live session"),
        ({"provider": "default", "before": "2100-01-01T00:00"}, "2 live sessions"),
        ({"before": "2000-01-01T00:00"}, "0 live sessions"),
    ):
        page = client.get(ADD, selection)
        assert number in text_of(page), selection
        assert "Your own session" not in text_of(page)
    assert (len(live()), SessionEndJob.objects.count()) == (2, 0)


def test_t1_own_session_is_left_out_by_default(op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf) -> None:
    client, person = admin_with(*BOTH), sign_in()
    group = Group.objects.create(name="Ward 7")
    group.user_set.add(person.user, client.user)  # type: ignore[attr-defined]
    page = client.get(ADD, {"group": group.pk})
    assert "1 live session They are the sessions of 1 person." in text_of(page)
    assert "Your own session" not in text_of(page)
    assert client.post(ADD, confirmed(1, group=group.pk)).status_code == 302
    assert set(OIDCSession.objects.live()) == {OIDCSession.objects.get(pk=client.session_id)}  # type: ignore[attr-defined]

    page = client.get(ADD, {"group": group.pk, "include_own": "on"})
    assert "Your own session is one of them" in text_of(page)
    assert client.post(ADD, confirmed(1, group=group.pk, include_own="on")).status_code == 302
    assert not OIDCSession.objects.live().exists()


@pytest.mark.parametrize(
    ("data", "error"),
    [
        ({"people": 2}, "This field is required."),
        ({"people": 2, "reason": "curiosity"}, "Select a valid choice."),
        ({"reason": "incident"}, "This field is required."),
        ({"people": 3, "reason": "incident"}, "The sessions of 2 people will end. Enter this number."),
        ({"people": 1, "reason": "incident"}, "The sessions of 2 people will end. Enter this number."),
    ],
)
def test_t1_reason_and_number_of_people_are_required(
    data: dict[str, Any], error: str, op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf
) -> None:
    client, person = admin_with(*BOTH), sign_in()
    sign_in(again=person), sign_in()
    page = client.post(ADD, {"provider": "default", **data})
    assert (page.status_code, len(live()), SessionEndJob.objects.count()) == (200, 3, 0)
    assert error in text_of(page)
    # The criteria and the input are kept, so that only the error is corrected.
    assert '<input type="hidden" name="provider" value="default"' in page.content.decode()
    is_chosen = re.search(r'value="incident"[^>]* checked', page.content.decode()) is not None
    assert is_chosen == (data.get("reason") == "incident")
    assert client.post(ADD, confirmed(2, provider="default")).status_code == 302
    assert live() == set()
    (event,) = recorded("session.end_requested")
    detail = parse_detail(event.detail)
    assert (event.reason, detail["people"], detail["sessions"]) == ("incident", 2, 3)


def test_t1_person_who_signs_in_after_the_count_requires_another_confirmation(
    op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf
) -> None:
    client = admin_with(*BOTH)
    sign_in()
    assert "the sessions of 1 person" in text_of(client.get(ADD, {"provider": "default"}))
    sign_in()
    page = client.post(ADD, confirmed(1, provider="default"))
    assert "The sessions of 2 people will end. Enter this number." in text_of(page)
    assert (len(live()), SessionEndJob.objects.count()) == (2, 0)


@pytest.mark.parametrize(
    "selection", [{"provider": ""}, {"provider": "unknown"}, {"group": "99"}, {"user": "x"}, {"before": "x"}]
)
def test_invalid_selection_ends_nothing(
    selection: dict[str, str], op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf
) -> None:
    client = admin_with(*BOTH)
    sign_in()
    for page in (client.get(ADD, selection), client.post(ADD, selection)):
        assert page.status_code == 200
        assert "errorlist" in page.content.decode() or "Choose a provider, a group, a person or a time." in text_of(
            page
        )
        assert "live session" not in page.content.decode().partition("phi-count")[2]
    assert (len(live()), SessionEndJob.objects.count()) == (1, 0)


def test_few_sessions_are_ended_and_their_tokens_revoked_at_once(
    op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf
) -> None:
    client, person = admin_with(*BOTH), sign_in()
    other = sign_in()
    page = client.post(ADD, confirmed(1, user=person.user.pk), follow=True)
    assert live() == {other.session.pk}
    assert len(op.asked) == 2
    text = text_of(page)
    assert "Done: 1 session was ended." in text
    assert "Tokens revoked 2 / 2" in text
    assert f"person {person.user.get_username()}" in text
    assert "data-open" not in page.content.decode()
    (event,) = recorded("session.ended")
    assert (event.actor, event.reason) == (str(client.user.pk), "administrator")  # type: ignore[attr-defined]


def test_rest_is_left_to_a_worker_and_the_page_shows_the_progress(
    op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_end_jobs, "BATCH_SIZE", 3)
    monkeypatch.setattr("django_phi_oidc.contrib.officer_admin.session_end_admin.INLINE_SECONDS", 0)
    op.answer = answering(503)
    client = admin_with(*BOTH)
    for _ in range(7):
        sign_in()
    page = client.post(ADD, confirmed(7, provider="default"), follow=True)
    url = page.redirect_chain[0][0]
    text = text_of(page)
    assert "Running: 3 of 7 sessions were ended." in text
    assert "data-open" in page.content.decode()
    assert '<noscript><meta http-equiv="refresh"' in page.content.decode()
    assert "http_503" in text
    assert "No worker is processing this" not in text

    time[0] += timedelta(minutes=1)
    page = client.get(url)
    assert "No worker is processing this" in text_of(page)
    # Without a worker, reloading would keep the administrator signed in.
    assert "refresh" not in page.content.decode()
    page = client.post(f"{url.removesuffix('change/')}continue/", follow=True)
    assert "Running: 6 of 7 sessions were ended." in text_of(page)
    run_session_end_jobs()
    page = client.get(url)
    assert "Done: 7 sessions were ended." in text_of(page)
    assert "Revocations waiting 14" in text_of(page)
    assert "data-open" in page.content.decode()
    op.answer = answering(200)
    time[0] += timedelta(minutes=10)
    sweep_revocations()
    page = client.get(url)
    assert "Tokens revoked 14 / 14" in text_of(page)
    assert "data-open" not in page.content.decode()


def test_sessions_are_ended_without_the_audit_log(
    op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf, audit_database_away: Callable[[], Any]
) -> None:
    client = admin_with(*BOTH)
    sign_in()
    with audit_database_away():
        assert client.post(ADD, confirmed(1, provider="default")).status_code == 302
    assert live() == set()


def test_list_shows_names_by_a_constant_number_of_queries(op: ScriptedOP, sign_in: SignIn, admin_with: AdminOf) -> None:
    client, counts = admin_with(*BOTH), []
    client.user.first_name, client.user.last_name = "Lena", "Berg"  # type: ignore[attr-defined]
    client.user.save()  # type: ignore[attr-defined]
    for number in (1, 5):
        for _ in range(number):
            group = Group.objects.create(name=f"Ward {Group.objects.count()}")
            person = sign_in()
            person.user.groups.add(group)  # type: ignore[attr-defined]
            client.post(ADD, confirmed(1, group=group.pk, user=person.user.pk))
        with CaptureQueriesContext(connection) as captured:
            page = client.get(JOBS)
        counts.append(len(captured))
        assert f"group {group.name}" in text_of(page)
        assert "Lena Berg" in text_of(page)
    assert counts[0] == counts[1]


def test_job_that_does_not_exist_is_not_found(op: ScriptedOP, admin_with: AdminOf) -> None:
    client = admin_with(*BOTH)
    assert client.get(f"{JOBS}00000000-0000-0000-0000-000000000000/change/").status_code == 404
    assert client.get(f"{JOBS}x/change/").status_code == 404

"""The admin of activation codes: permissions, codes that are shown once and not stored, and actors in events."""

import re
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.signals import got_request_exception
from django.test import Client
from django.views.debug import ExceptionReporter

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.invitations import invitations
from django_phi_oidc.contrib.invitations.activation_redemption import redeem_code
from django_phi_oidc.contrib.invitations.errors import ActivationRefused
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.crypto import keyring
from django_phi_oidc.subjects.linking import link_existing_user
from tests.support.officers import sign_in_officer
from tests.support.subject_linking import NOW, make_user

LIST = "/admin/phi_oidc_invitations/activationcode/"
ADD = f"{LIST}add/"
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
Officer = Callable[..., Client]


@pytest.fixture(autouse=True)
def _at_noon(settings: Any) -> Iterator[None]:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    declare(settings, "invitation")
    with clock.override_clock(lambda: NOW):
        yield


def declare(settings: Any, provisioning: str) -> None:
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": provisioning}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": default}}


@pytest.fixture
def officer() -> Officer:
    """Return a function that signs in an administrator with these permissions on the codes."""
    return lambda *names, **options: sign_in_officer(*(f"{name}_activationcode" for name in names), **options)


def add(client: Client, user: Any) -> Any:
    return client.post(ADD, {"provider": "default", "user": user.pk})


def run_action(client: Client, action: str, *codes: ActivationCode) -> Any:
    form = {"action": action, "_selected_action": [code.pk for code in codes], "post": "yes"}
    return client.post(LIST, form, follow=True)


def messages_of(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def code_of(response: Any) -> str:
    (code,) = re.findall(r"<code>([0-9A-Z-]{19})</code>", response.content.decode())
    return str(code)


def invited(user: Any) -> ActivationCode:
    provider, key = conf.providers()["default"], keyring.get_keys("subject")[0]
    invitations.create_invitations(
        [user.pk], provider=provider, key=key, lifetime=timedelta(days=1), origin=Origin(), now=NOW
    )
    return ActivationCode.objects.get(user=user, revoked_at=None)


def redeem(code: str, sub: str = "s") -> Any:
    provider, keys = conf.providers()["default"], keyring.get_keys("subject")
    return redeem_code(code, sub=sub, provider=provider, keys=keys, origin=Origin(), now=NOW).user


def events(action: str) -> list[tuple[str, str]]:
    return list(AuditEvent.objects.filter(action=action).order_by("id").values_list("actor", "resource"))


def test_add_shows_the_code_once_and_records_the_administrator(officer: Officer) -> None:
    client, user = officer("issue", "view"), make_user()
    page = add(client, user)
    code, row = code_of(page), ActivationCode.objects.get()
    assert (page.status_code, "no-store" in page["Cache-Control"]) == (200, True)
    assert (row.created_by, events("activation.issued")) == (
        str(client.user.pk),  # type: ignore[attr-defined]
        [(row.created_by, f"user/{user.pk}")],
    )
    later = [client.get(url) for url in (LIST, f"{LIST}{row.pk}/change/", f"{LIST}{row.pk}/history/", "/admin/")]
    assert [page.status_code for page in later] == [200] * 4
    everywhere = [page.content.decode() for page in later] + [repr(LogEntry.objects.values())]
    everywhere += [repr(dict(client.session)), *(morsel.OutputString() for morsel in client.cookies.values())]
    assert not [text for text in everywhere for form in (code, code.replace("-", ""), row.digest[:12]) if form in text]
    assert redeem(code) == user


@pytest.mark.parametrize(("permitted", "opened"), [("view", {"view"}), ("issue", {"add"}), ("", set())])
def test_each_action_requires_its_permission(permitted: str, opened: set[str], officer: Officer) -> None:
    client, code = officer(*filter(None, [permitted])), invited(make_user())
    page = f"{LIST}{code.pk}"
    statuses = {
        "view": client.get(f"{page}/change/").status_code,
        "add": client.get(ADD).status_code,
        "change": client.post(f"{page}/change/", {"provider": "x", "user": client.user.pk}).status_code,  # type: ignore[attr-defined]
        "delete": client.post(f"{page}/delete/", {"post": "yes"}).status_code,
    }
    assert statuses == {name: 200 if name in opened else 403 for name in statuses}
    assert add(client, make_user()).status_code == (200 if "add" in opened else 403)
    before = ActivationCode.objects.values().get(pk=code.pk)
    for action in ("revoke", "make_another", "delete_selected"):
        run_action(client, action, code)
        client.get(LIST, {"action": action, "_selected_action": code.pk})
    assert ActivationCode.objects.values().get(pk=code.pk) == before
    assert ActivationCode.objects.count() == 1 + len(opened & {"add"})


def test_opening_the_form_creates_no_code(officer: Officer) -> None:
    client, user = officer("issue", "view"), make_user()
    client.get(ADD, {"provider": "default", "user": user.pk})
    assert client.post(ADD, {"provider": "default", "user": ""}).status_code == 200
    client.handler.enforce_csrf_checks = True
    assert add(client, user).status_code == 403
    assert not ActivationCode.objects.exists()


@pytest.mark.parametrize("is_superuser", [False, True])
def test_only_superusers_invite_superusers(is_superuser: bool, officer: Officer) -> None:
    root = get_user_model().objects.create_superuser("root")
    client, code = officer("issue", "view", is_superuser=is_superuser), invited(root)
    assert add(client, root).status_code == (200 if is_superuser else 403)
    newest = ActivationCode.objects.latest("pk")
    assert (newest != code) is is_superuser
    assert run_action(client, "make_another", newest).status_code == (200 if is_superuser else 403)
    assert ActivationCode.objects.count() == (3 if is_superuser else 1)
    assert LogEntry.objects.count() == is_superuser
    denied = AuditEvent.objects.filter(action="access.denied").values_list("resource", flat=True)
    assert list(denied) == ([] if is_superuser else [f"user/{root.pk}"] * 2)


def test_revoke_affects_unused_codes_and_records_the_administrator(officer: Officer) -> None:
    client, users = officer("issue", "view"), [make_user() for _ in range(3)]
    codes = [invited(user) for user in users]
    redeemed = code_of(add(client, users[0]))
    redeem(redeemed)
    assert messages_of(run_action(client, "revoke", *ActivationCode.objects.filter(user__in=users[:2]))) == [
        "1 code was revoked.",
        "2 codes were skipped, because they were redeemed, revoked or expired.",
    ]
    assert (str(client.user.pk), f"user/{users[1].pk}") in events("activation.revoked")  # type: ignore[attr-defined]
    assert list(ActivationCode.objects.filter(redeemed_at=None, revoked_at=None)) == [codes[2]]


def test_revoke_of_too_many_codes_revokes_none(officer: Officer) -> None:
    client, codes = officer("issue", "view"), [invited(make_user()) for _ in range(501)]
    assert messages_of(run_action(client, "revoke", *codes)) == ["Nothing was done: select at most 500 rows."]
    assert not events("activation.revoked")
    assert messages_of(run_action(client, "revoke", codes[0])) == ["1 code was revoked."]


def test_replacement_code_is_shown_and_the_previous_one_is_invalid(officer: Officer) -> None:
    client, user = officer("issue", "view"), make_user()
    previous = code_of(add(client, user))
    page = run_action(client, "make_another", ActivationCode.objects.get())
    assert (page.status_code, "no-store" in page["Cache-Control"]) == (200, True)
    with pytest.raises(ActivationRefused) as refusal:
        redeem(previous)
    assert refusal.value.reason == "revoked"
    assert redeem(code_of(page)) == user


def test_failed_replacement_shows_the_reason_and_keeps_the_code(officer: Officer, settings: Any) -> None:
    client, users = officer("issue", "view"), [make_user() for _ in range(2)]
    codes = [invited(user) for user in users]
    assert messages_of(run_action(client, "make_another", *codes)) == ["Nothing was done: select only 1 row."]
    get_user_model().objects.filter(pk=users[0].pk).update(is_active=False)
    assert messages_of(run_action(client, "make_another", codes[0])) == [f"User {users[0].pk} is deactivated."]
    assert messages_of(add(client, users[0]) and client.get(ADD)) == [f"User {users[0].pk} is deactivated."]
    impossible = ["The code was redeemed, or its provider accepts no activation codes."]
    declare(settings, "create")
    assert messages_of(run_action(client, "make_another", codes[1])) == impossible
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {}}
    assert messages_of(run_action(client, "make_another", codes[1])) == impossible
    assert list(ActivationCode.objects.filter(revoked_at=None).order_by("pk")) == codes


def test_list_shows_the_state_of_each_code(officer: Officer) -> None:
    client, users = officer("issue", "view"), [make_user() for _ in range(4)]
    redeem(code_of(add(client, users[0])))
    run_action(client, "revoke", invited(users[1]))
    over, waiting = invited(users[2]), invited(users[3])
    ActivationCode.objects.filter(pk=over.pk).update(expires_at=NOW)
    states = {}
    for state in ("", "waiting", "redeemed", "over"):
        codes = client.get(LIST, {"state": state} if state else {}).context["cl"].result_list
        states[state] = [code.user for code in codes]
    assert states == {"": users[::-1], "waiting": [users[3]], "redeemed": [users[0]], "over": [users[2], users[1]]}
    assert waiting.user == users[3]
    page = client.get(LIST).content.decode()
    assert re.findall(r'field-state">(\w+)', page) == ["Waiting", "Expired", "Revoked", "Redeemed"]
    assert client.get(LIST, {"q": users[0].get_username()}).context["cl"].result_count == 1
    assert client.get(LIST, {"q": users[0].get_username()[1:]}).context["cl"].result_count == 0


def test_error_report_hides_the_code(officer: Officer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error report, as Django sends it to administrators, contains no code."""
    client, user, created, reports = officer("issue", "view"), make_user(), [], list[str]()
    client.raise_request_exception = False
    create_code = invitations.create_code

    def report(request: Any, **kwargs: Any) -> None:
        reporter = ExceptionReporter(request, *sys.exc_info())
        reports.append(reporter.get_traceback_text() + reporter.get_traceback_html())

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("an internal error")

    monkeypatch.setattr(invitations, "create_code", lambda: created.append(create_code()) or created[-1])
    monkeypatch.setattr(invitations, "NewEvent", fail)
    got_request_exception.connect(report)
    try:
        assert add(client, user).status_code == 500
    finally:
        got_request_exception.disconnect(report)
    assert "an internal error" in reports[0]
    assert created
    assert created[0] not in reports[0]
    assert not ActivationCode.objects.exists()


@pytest.mark.parametrize(("extra", "status"), [((), 403), (("reveal_storedclaim", "open_emergencyaccess"), 200)])
def test_f5_clinician_is_invited_only_by_an_administrator_with_the_same_permissions(
    extra: tuple[str, ...], status: int
) -> None:
    clinician = make_user()
    permissions = Permission.objects.filter(codename__in=("reveal_storedclaim", "open_emergencyaccess"))
    clinician.user_permissions.set(permissions)
    client = sign_in_officer("issue_activationcode", *extra)
    assert add(client, clinician).status_code == status
    assert ActivationCode.objects.count() == (status == 200)
    denied = AuditEvent.objects.filter(action="access.denied").values_list("resource", flat=True)
    assert list(denied) == ([f"user/{clinician.pk}"] if status == 403 else [])


@pytest.mark.parametrize(("extra", "status"), [((), 403), (("add_pairwisesubject",), 200)])
@pytest.mark.parametrize("is_linked", [False, True])
def test_f5_linked_account_is_invited_only_by_an_administrator_who_may_link(
    is_linked: bool, extra: tuple[str, ...], status: int
) -> None:
    user = link_user().user if is_linked else make_user()
    client = sign_in_officer("issue_activationcode", *extra)
    assert add(client, user).status_code == (status if is_linked else 200)


def link_user() -> Any:
    keys, provider = keyring.get_keys("subject"), conf.providers()["default"]
    return link_existing_user(make_user(), sub="linked", provider=provider, keys=keys, origin=Origin(), now=NOW)

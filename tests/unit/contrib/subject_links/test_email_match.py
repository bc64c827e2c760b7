"""A verified e-mail address links one person to an account, also if others are linked to it at the same time."""

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, transaction

from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.outbox import defer_delivery
from django_phi_oidc.config.providers import ProviderDeclaration, parse_provider
from django_phi_oidc.contrib.subject_links.email_match import EmailMatch, has_required_fields
from django_phi_oidc.errors import EmailMatchRefused, NotProvisioned, PhiOidcError
from django_phi_oidc.subjects.linking import LinkedAccount, link_existing_user
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.concurrent_transaction import transaction_beside
from tests.support.subject_linking import ISSUER, KEY_1, KEY_2, NOW, SUB, at_once, make_user, sign_in

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ADDRESS = "amina@example.org"
LINKING = {"accounts_created_before": "2026-11-01", "until": "2026-12-31"}


DECLARED = {"client_id": "portal", "client_secret": "s"}


def declare(**options: Any) -> ProviderDeclaration:
    return parse_provider("default", {**DECLARED, "issuer": ISSUER, "link_verified_email": LINKING, **options})


def create_account(**fields: Any) -> Any:
    user = make_user()
    fields = {"email": ADDRESS, "date_joined": datetime(2026, 10, 31, 23, 59, tzinfo=UTC), **fields}
    get_user_model().objects.filter(pk=user.pk).update(**fields)
    return user


def sign_in_by_email(sub: str = SUB, *, keys: Any = (KEY_1,), address: str = ADDRESS, **options: Any) -> LinkedAccount:
    match = EmailMatch(address=address, provider=declare(), now=NOW)
    return sign_in(keys, sub=sub, account_match=match, **{"create_user": None, **options})


def try_sign_in(*arguments: Any, **options: Any) -> LinkedAccount | PhiOidcError:
    try:
        return sign_in_by_email(*arguments, **options)
    except PhiOidcError as error:
        return error


def link(user: Any, *, sub: str) -> PairwiseSubject | PhiOidcError:
    try:
        return link_existing_user(
            user, sub=sub, provider=declare(), keys=[KEY_1], origin=Origin(actor="officer"), now=NOW
        )
    except PhiOidcError as error:
        return error


def match_of(refusal: object) -> str:
    assert isinstance(refusal, EmailMatchRefused), refusal
    return refusal.match


@pytest.mark.parametrize(
    ("created_at", "is_linked"),
    [(datetime(2026, 10, 31, 23, 59, 59, tzinfo=UTC), True), (datetime(2026, 11, 1, tzinfo=UTC), False)],
    ids=["the day before", "the first day"],
)
def test_only_accounts_from_before_the_first_day_are_linked(created_at: datetime, is_linked: bool) -> None:
    user = create_account(date_joined=created_at)
    linked = try_sign_in()
    assert linked.user == user if isinstance(linked, LinkedAccount) else match_of(linked) == "created_later"
    assert PairwiseSubject.objects.count() == is_linked


@pytest.mark.parametrize(
    ("stored", "received", "is_match"),
    [
        ("Amina@Example.ORG", "amina@example.org", True),
        ("amina@example.org", "AMINA@example.org", True),
        ("amina@example.org", "amina@example.org ", False),
        ("aminaa@example.org", "amina_@example.org", False),
        ("aminaa@example.org", "amina%@example.org", False),
        ("amına@example.org", "amina@example.org", False),
        ("amina@example.org", "amına@example.org", False),
        ("åmina@example.org", "åmina@example.org", False),
        ("straße@example.org", "STRASSE@example.org", False),
        ("", "amina@example.org", False),
    ],
)
def test_addresses_match_exactly_but_for_the_case_of_ascii_letters(stored: str, received: str, is_match: bool) -> None:
    create_account(email=stored)
    result = try_sign_in(address=received)
    assert isinstance(result, LinkedAccount if is_match else NotProvisioned)
    assert not isinstance(result, EmailMatchRefused)


def test_one_of_many_persons_with_the_same_address_is_linked() -> None:
    user = create_account()
    results = at_once(*(lambda sub=f"person {n}": try_sign_in(sub) for n in range(6)))
    linked = [result for result in results if isinstance(result, LinkedAccount)]
    assert [item.user for item in linked] == [user]
    assert {match_of(result) for result in results if isinstance(result, Exception)} <= {"linked", "linked_before"}
    assert PairwiseSubject.objects.count() == 1
    assert AuditEvent.objects.filter(action="subject.linked").count() == 1


def test_concurrent_sign_ins_of_one_person_get_the_same_account() -> None:
    user = create_account()
    results = at_once(*(lambda keys=keys: try_sign_in(keys=keys) for keys in [[KEY_1, KEY_2], [KEY_2, KEY_1]] * 3))
    assert {result.user for result in results if isinstance(result, LinkedAccount)} == {user}
    assert [result for result in results if isinstance(result, Exception)] == []
    assert sum(result.created for result in results if isinstance(result, LinkedAccount)) == 1
    assert PairwiseSubject.objects.count() == 1


def before_the_account_is_locked(act: Callable[[], object]) -> Callable[..., Any]:
    """Return a wrapper that calls act in another thread after the account was found by its address."""
    done: list[object] = []

    def execute_then_act(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if ADDRESS in str(params) and not done:
            done.append(None)
            act()
        return result

    return execute_then_act


@pytest.mark.parametrize("is_same_account", [True, False])
def test_link_of_the_person_by_an_administrator_in_the_meantime_is_kept(is_same_account: bool) -> None:
    user = create_account()
    linked_user = user if is_same_account else make_user()
    with connection.execute_wrapper(before_the_account_is_locked(lambda: at_once(lambda: link(linked_user, sub=SUB)))):
        result = try_sign_in()
    assert isinstance(result, LinkedAccount)
    assert (result.user, result.created) == (linked_user, False)
    assert PairwiseSubject.objects.get().user == linked_user
    assert [json.loads(event.detail) for event in AuditEvent.objects.filter(action="subject.linked")] == [
        {"created": False}
    ]


def test_link_of_another_person_by_an_administrator_in_the_meantime_is_seen() -> None:
    user = create_account()
    match = EmailMatch(address=ADDRESS, provider=declare(), now=NOW)
    user_id = match.find_user_id()
    at_once(lambda: link(user, sub="another person"))
    with pytest.raises(EmailMatchRefused) as refusal, transaction.atomic():
        match.get_locked_user(user_id)
    assert refusal.value.match == "linked"


@pytest.mark.parametrize("provider", ["default", "patients"])
def test_former_link_is_seen_before_its_event_is_in_the_audit_log(provider: str) -> None:
    """The event waits in the outbox while the audit database is unavailable."""
    user = create_account()
    declared = parse_provider(provider, {**DECLARED, "issuer": f"https://{provider}.example"})
    with defer_delivery():
        link_existing_user(user, sub="unlinked", provider=declared, keys=[KEY_1], origin=Origin(actor="o"), now=NOW)
        link(make_user(), sub="another account")
    PairwiseSubject.objects.filter(user=user).delete()
    assert AuditOutbox.objects.filter(event__contains="subject.linked").count() == 2
    result = try_sign_in()
    assert match_of(result) == "linked_before" if provider == "default" else isinstance(result, LinkedAccount)


@pytest.mark.parametrize("is_declared", [True, False])
def test_account_of_a_person_of_another_declared_provider_is_refused(is_declared: bool, settings: Any) -> None:
    """Else that person would keep a way into the account of the owner of the address."""
    user = create_account()
    other = parse_provider("patients", {**DECLARED, "issuer": "https://patients.example"})
    link_existing_user(user, sub="a patient", provider=other, keys=[KEY_1], origin=Origin(actor="officer"), now=NOW)
    if is_declared:
        providers = {**settings.PHI_OIDC["PROVIDERS"], "patients": {**DECLARED, "issuer": other.issuer}}
        settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": providers}
    result = try_sign_in()
    assert match_of(result) == "linked" if is_declared else isinstance(result, LinkedAccount)
    assert PairwiseSubject.objects.count() == (1 if is_declared else 2)


CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    "deactivated": ("inactive", {"is_active": False}),
    "promoted": ("privileged", {"is_staff": True}),
    "another address": ("ambiguous", {"email": "other@example.org"}),
}


@pytest.mark.parametrize(("match", "changes"), CHANGES.values(), ids=CHANGES)
def test_account_that_changes_in_the_meantime_is_refused(match: str, changes: dict[str, Any]) -> None:
    user = create_account()

    def change() -> None:
        get_user_model().objects.filter(pk=user.pk).update(**changes)

    with connection.execute_wrapper(before_the_account_is_locked(lambda: at_once(change))):
        assert match_of(try_sign_in()) == match
    assert not PairwiseSubject.objects.exists()


@pytest.mark.postgresql
def test_sign_in_waits_for_a_link_that_an_administrator_has_not_committed() -> None:
    """PostgreSQL only: on SQLite one transaction waits for the other before its first query."""
    user = create_account()
    results: list[Any] = []
    with transaction_beside(lambda: link(user, sub="another person")) as commit:
        thread = threading.Thread(target=lambda: results.extend(at_once(try_sign_in)))
        thread.start()
        thread.join(1)
        assert thread.is_alive(), "the sign-in waits"
        commit()
        thread.join(30)
    assert match_of(results[0]) == "linked"
    assert PairwiseSubject.objects.get().user == user


def test_refused_link_leaves_the_password_and_an_accepted_one_makes_it_unusable() -> None:
    user = create_account(is_staff=True)
    user.refresh_from_db()
    user.set_password("known to its owner")
    user.save()
    assert match_of(try_sign_in()) == "privileged"
    user.refresh_from_db()
    assert user.check_password("known to its owner")
    get_user_model().objects.update(is_staff=False)
    linked = sign_in_by_email()
    user.refresh_from_db()
    assert not user.has_usable_password()
    assert linked.user.get_session_auth_hash() == user.get_session_auth_hash()


def test_known_person_is_not_matched_by_address() -> None:
    known = sign_in().user
    create_account()
    assert sign_in_by_email().user == known


def test_match_outside_of_its_time_finds_no_account() -> None:
    create_account()
    for now in (datetime(2026, 10, 31, 23, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)):
        assert EmailMatch(address=ADDRESS, provider=declare(), now=now).find_user_id() is None
    for now in (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 31, 23, 59, tzinfo=UTC)):
        assert EmailMatch(address=ADDRESS, provider=declare(), now=now).find_user_id() is not None


def test_user_model_needs_an_address_and_a_time_of_creation() -> None:
    class WithoutAddress(get_user_model()):  # type: ignore[misc]  # the model of the tests
        EMAIL_FIELD = "address"

        class Meta:
            proxy = True
            app_label = "tests_email_match"

    assert has_required_fields(get_user_model())
    assert not has_required_fields(WithoutAddress)
    assert not has_required_fields(PairwiseSubject)

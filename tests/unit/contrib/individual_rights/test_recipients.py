"""The accounting names a recipient as it was at the time of the disclosure."""

import json
import re
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.access.decisions import authorize
from django_phi_oidc.access.policy import AccessPolicy
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AppendOnlyError, AuditEvent
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.contrib.individual_rights.accounting import create_accounting
from django_phi_oidc.contrib.individual_rights.models import DisclosureRecipient
from django_phi_oidc.contrib.individual_rights.recipients import (
    Recipient,
    find_recipients,
    forget_remembered,
    remember_recipient,
)
from django_phi_oidc.contrib.legal_holds.legal_hold_disclosure import disclose_held_claims
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from django_phi_oidc.crypto import keyring
from tests.settings import key
from tests.support.claims_fixtures import NOW, Person, make_person, person  # noqa: F401 -- fixtures
from tests.support.disclosure_events import DAY, RESOURCES, look, resources_of
from tests.support.emergency_access import allow
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
POLICY = AccessPolicy(permission="auth.view_user", purposes=frozenset({"TREAT"}))


@pytest.fixture
def nurse() -> Any:
    user: Any = get_user_model()._default_manager.create_user(username="n", first_name="Ada", last_name="Berg")
    user.groups.add(Group.objects.create(name="nurses"))
    return allow(user, "view_user", "reveal_storedclaim", "disclose_legalhold")


def actor_of(user: Any) -> Actor:
    return Actor(
        user=get_user_model()._default_manager.get(pk=user.pk), origin=Origin(str(user.pk), str(uuid.UUID(int=7)))
    )


def open_chart(user: Any, patient: Person, *, at: Any = NOW) -> str | None:
    resource = f"Patient/{patient.user.pk}"
    return authorize(actor_of(user), POLICY, resource=resource, purpose="TREAT", find_object=None, now=at)


def account(person: Person, *, now: Any = NOW) -> list[tuple[str, tuple[str, ...]]]:
    options: Any = {"resources": resources_of(person.user), "since": NOW - 30 * DAY, "include_own": True}
    rows = create_accounting(person.user, **options, origin=Origin(), now=now).list_all()
    return [(row.recipient.name, row.recipient.roles) for row in rows]


def test_g9_recipient_has_the_name_and_role_of_the_time_of_the_look(nurse: Any, person: Person) -> None:
    assert open_chart(nurse, person) is None
    nurse.last_name = "Adler"
    nurse.save()
    assert open_chart(nurse, person, at=NOW + DAY) is None
    nurse.groups.set([Group.objects.create(name="auditors")])
    forget_remembered()
    assert open_chart(nurse, person, at=NOW + 2 * DAY) is None
    nurse.delete()
    # The database may give the key to a new account.
    get_user_model()._default_manager.create_user(
        username="x", first_name="Eve", pk=int(AuditEvent.objects.all()[0].actor)
    )
    expected = [("Ada Adler", ("auditors",)), ("Ada Adler", ("nurses",)), ("Ada Berg", ("nurses",))]
    assert account(person) == expected
    assert DisclosureRecipient.objects.count() == 3


def test_g9_each_path_of_a_disclosure_stores_the_recipient(
    nurse: Any,
    make_person: Callable[..., Person],
) -> None:
    first, second = make_person(), make_person()
    for each in (first, second):
        each.store({"address": "Bern"})
    with clock.override_clock(lambda: NOW):
        reveal(actor_of(nurse), first.user, "address", purpose="HOPERAT")
        assert DisclosureRecipient.objects.count() == 1
    nurse.first_name = "Bea"
    nurse.save()
    with clock.override_clock(lambda: NOW + timedelta(minutes=1)):
        place_hold(second.subject.uuid, reason="Docket 26-117", until=None, origin=Origin(), now=NOW)
        disclose_held_claims(actor_of(nurse), second.subject.uuid, purpose="HLEGAL")
    assert (account(first), account(second)) == ([("Ada Berg", ("nurses",))], [("Bea Berg", ("nurses",))])


def test_g9_refused_look_stores_no_name(nurse: Any, person: Person) -> None:
    nurse.user_permissions.clear()
    assert open_chart(nurse, person) == "permission_missing"
    assert not DisclosureRecipient.objects.exists()


def test_g9_look_at_the_own_record_stores_no_name(
    nurse: Any,
    make_person: Callable[..., Person],
    settings: Any,
) -> None:
    person = make_person(user=nurse)
    person.store({"address": "Bern"})
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PATIENT_RESOURCES": RESOURCES}
    for _ in range(2):
        assert open_chart(nurse, person) is None
    with clock.override_clock(lambda: NOW):
        reveal(actor_of(nurse), nurse, "address", purpose="PATRQT")
    assert not DisclosureRecipient.objects.exists()
    assert open_chart(nurse, make_person()) is None
    assert DisclosureRecipient.objects.count() == 1


def test_g9_name_is_encrypted_and_survives_a_change_of_the_keys(
    nurse: Any,
    person: Person,
    settings: Any,
) -> None:
    open_chart(nurse, person)
    with connection.cursor() as cursor:
        cursor.execute("SELECT identity FROM phi_oidc_individual_rights_disclosurerecipient")
        ((text,),) = cursor.fetchall()
    assert "Berg" not in text
    assert not AuditEvent.objects.filter(detail__contains="Berg").exists()
    old = settings.PHI_OIDC["KEYS"]["encryption"]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [key("a newer key"), *old]})
    call_command("phi_oidc", "keys", "rotate")
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [key("a newer key")]})
    assert account(person) == [("Ada Berg", ("nurses",))]


def test_g9_look_is_not_refused_without_the_encryption_keys(
    nurse: Any,
    person: Person,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"encryption": Path("/nowhere")})
    with transaction.atomic():
        assert open_chart(nurse, person) is None
        assert get_user_model()._default_manager.exists(), "the caller's transaction goes on"
    assert "The name of a recipient was not stored" in caplog.text
    assert "Berg" not in caplog.text
    settings.PHI_OIDC = before
    assert open_chart(nurse, person, at=NOW + DAY) is None
    assert account(person) == [("Ada Berg", ("nurses",))] * 2, "the first row after the look"


def test_g9_name_that_no_key_decrypts_is_unknown(nurse: Any, person: Person, settings: Any) -> None:
    open_chart(nurse, person)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [key("another key")]})
    assert account(person) == [("", ())]
    forget_remembered()
    open_chart(nurse, person, at=NOW + DAY)
    assert account(person) == [("Ada Berg", ("nurses",)), ("", ())]


def test_g9_rolled_back_name_is_stored_at_the_next_look(nurse: Any) -> None:
    with transaction.atomic():
        remember_recipient(nurse, now=NOW)
        transaction.set_rollback(True)
    assert not DisclosureRecipient.objects.exists()
    remember_recipient(nurse, now=NOW)
    assert DisclosureRecipient.objects.count() == 1


def test_g9_further_looks_take_no_query(nurse: Any) -> None:
    counts = []
    for _ in range(2):
        with CaptureQueriesContext(connections["default"]) as queries:
            remember_recipient(nurse, now=NOW)
        counts.append([query["sql"].split()[0] for query in queries])
    assert counts == [["SELECT", "SELECT", "INSERT"], []]
    forget_remembered()
    with CaptureQueriesContext(connections["default"]) as queries:
        remember_recipient(nurse, now=NOW)
    assert [query["sql"].split()[0] for query in queries] == ["SELECT", "SELECT"]


def test_g9_name_that_changes_twice_is_stored_three_times(nurse: Any) -> None:
    for number, name in enumerate(("Ada", "Bea", "Ada", "Ada")):
        nurse.first_name = name
        remember_recipient(nurse, now=NOW + timedelta(seconds=number))
    assert DisclosureRecipient.objects.count() == 3


def test_g9_recipient_is_the_last_one_before_the_look(nurse: Any) -> None:
    for name, at in (("A", NOW), ("B", NOW + DAY)):
        nurse.first_name = name
        remember_recipient(nurse, now=at)
    moments = [NOW - DAY, NOW, NOW + DAY - timedelta(microseconds=1), NOW + DAY]
    account = str(nurse.pk)
    found = find_recipients([(account, moment) for moment in moments] + [("0", NOW), ("", NOW)])
    names = [found[account, moment].name for moment in moments]
    assert names == ["A Berg", "A Berg", "A Berg", "B Berg"]
    assert len(found) == 4
    assert found[account, NOW] == Recipient(name="A Berg", roles=("nurses",))


def test_g9_stored_names_cannot_be_changed_or_deleted(nurse: Any) -> None:
    remember_recipient(nurse, now=NOW)
    rows = DisclosureRecipient.objects.all()
    for change in (rows.delete, lambda: rows.update(account="1"), rows[0].save, rows[0].delete):
        with pytest.raises(AppendOnlyError):
            change()


def test_g9_names_of_custom_users_without_names_and_groups_are_empty() -> None:
    class Minimal:
        pk = 7

    remember_recipient(Minimal(), now=NOW)
    field: Any = DisclosureRecipient._meta.get_field("identity")
    assert json.loads(field.decrypt(DisclosureRecipient.objects.get())) == {"name": "", "roles": []}
    assert keyring.get_keys("encryption")


def test_g9_command_and_page_show_roles(nurse: Any, person: Person, settings: Any, capsys: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PATIENT_RESOURCES": RESOURCES}
    open_chart(nurse, person)
    look(by="", resource=f"Patient/{person.user.pk}", at=NOW + DAY)
    with clock.override_clock(lambda: NOW + DAY):
        call_command("phi_oidc", "subject", "accounting", person.user.get_username())
    first, second = capsys.readouterr().out.splitlines()
    assert "  the system  " in first
    assert f"  Ada Berg, nurses ({nurse.pk})  " in second


def fail_for_staff(user: Any) -> list[str]:
    """Fail as `user.patient.pk` does for a user without a related row."""
    raise get_user_model().groups.through.DoesNotExist("canary")


def query_wrongly(user: Any) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT nothing FROM nowhere")
    return []


@pytest.mark.parametrize(
    ("function", "error"), [(fail_for_staff, "DoesNotExist"), (query_wrongly, "(Operational|Programming)Error")]
)
def test_g9_look_is_recorded_although_the_function_of_the_project_fails(
    function: Callable[[Any], list[str]],
    error: str,
    nurse: Any,
    person: Person,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = f"{__name__}.{function.__name__}"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PATIENT_RESOURCES": path}
    with transaction.atomic():
        assert open_chart(nurse, person) is None
        assert open_chart(nurse, Person()) is None
    assert AuditEvent.objects.filter(action="access.granted").count() == 2
    assert DisclosureRecipient.objects.exists(), "the resource is not the nurse's"
    assert len(re.findall(rf"PATIENT_RESOURCES: the function failed: {error}\.", caplog.text)) == 1
    assert "canary" not in caplog.text

"""What was given to a person is kept for six years, encrypted, and officers can download it."""

import hashlib
import json
from typing import Any

import pytest
from django.db import connection

from django_phi_oidc import tasks
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.individual_rights.accounting import (
    DisclosureAccounting,
    create_accounting,
    get_accounting_start,
)
from django_phi_oidc.contrib.individual_rights.models import AccountingCopy
from django_phi_oidc.errors import AuditUnavailable
from tests.settings import key
from tests.support.audit_outage import audit_database_fails
from tests.support.claims_fixtures import NOW, Person
from tests.support.disclosure_events import DAY, STAFF, look, resources_of
from tests.support.officers import sign_in_officer
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
COPIES = "/admin/phi_oidc_individual_rights/accountingcopy/"


def account_for(person: Person, *, now: Any = NOW) -> DisclosureAccounting:
    options: Any = {"resources": resources_of(person.user), "since": NOW - 30 * DAY, "include_own": False}
    return create_accounting(person.user, **options, origin=Origin(actor="9"), now=now)


def read(copy: AccountingCopy) -> str:
    field: Any = AccountingCopy._meta.get_field("lines")
    return str(field.decrypt(copy))


def digests() -> list[str]:
    events = AuditEvent.objects.filter(action="subject.accounted").order_by("id")
    return [json.loads(event.detail)["sha256"] for event in events]


def test_g9_copy_has_the_lines_that_were_given_and_the_event_its_digest(person: Person) -> None:
    resource = f"Patient/{person.user.pk}"
    (older,), (newer,) = look(by=STAFF, resource=resource, at=NOW - DAY), look(by=STAFF, resource=resource)
    account_for(person).get_page(size=1)
    copy = AccountingCopy.objects.get()
    line = {
        "action": "access.granted",
        "actor": STAFF,
        "claims": [],
        "emergency": "",
        "event": str(newer),
        "name": "",
        "occurred_at": "2026-11-24T12:00:00+00:00",
        "on_behalf_of": "",
        "own": False,
        "purpose": "TREAT",
        "resource": resource,
        "roles": [],
    }
    assert read(copy) == json.dumps(line, sort_keys=True) + "\n"
    assert (copy.account, copy.count) == (str(person.user.pk), 1)
    assert digests() == [copy.sha256] == [hashlib.sha256(read(copy).encode()).hexdigest()]
    account_for(person).list_all()
    assert [str(older) in read(each) for each in AccountingCopy.objects.order_by("count")] == [False, True]
    with connection.cursor() as cursor:
        cursor.execute("SELECT lines FROM phi_oidc_individual_rights_accountingcopy")
        assert STAFF not in "".join(text for (text,) in cursor.fetchall())


def test_g9_same_page_is_stored_once(person: Person) -> None:
    look(by=STAFF, resource=f"Patient/{person.user.pk}")
    for now in (NOW, NOW + DAY):
        account_for(person, now=now).get_page()
    copy = AccountingCopy.objects.get()
    assert (copy.first_given_at, copy.last_given_at) == (NOW, NOW + DAY)
    assert digests() == [copy.sha256] * 2
    look(by=STAFF, resource=f"Patient/{person.user.pk}", at=NOW + DAY)
    account_for(person, now=NOW + DAY).get_page()
    assert AccountingCopy.objects.count() == 2


def test_g9_nothing_is_given_without_the_event_or_the_keys(person: Person, settings: Any) -> None:
    report = account_for(person)
    with audit_database_fails(), pytest.raises(AuditUnavailable):
        report.list_all()
    before = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"encryption": []})
    with pytest.raises(AuditUnavailable):
        report.list_all()
    assert (AccountingCopy.objects.count(), digests()) == (0, [])
    settings.PHI_OIDC = before
    assert report.list_all() == []
    assert len(digests()) == 1


def test_g9_copy_is_deleted_six_years_after_it_was_last_given(person: Person) -> None:
    account_for(person).list_all()
    later = NOW.replace(year=NOW.year + 6)
    assert get_accounting_start(later) == NOW
    for now, count in ((later, 1), (later + DAY, 0)):
        with clock.override_clock(lambda now=now: now):
            tasks.prune()
        assert AccountingCopy.objects.count() == count


def test_g9_officer_downloads_the_copy_after_an_event(person: Person, settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    look(by=STAFF, resource=f"Patient/{person.user.pk}")
    account_for(person).list_all()
    person.user.delete()
    copy = AccountingCopy.objects.get()
    url = f"{COPIES}{copy.pk}/change/"
    officer = sign_in_officer("view_accountingcopy")
    shown = [officer.get(f"{COPIES}?q={term}").content.decode() for term in (copy.account, f"{copy.account}0")]
    assert [copy.sha256 in page.replace("<wbr>", "") for page in shown] == [True, False]
    document = officer.get(url)
    assert document.content.decode() == read(copy)
    assert document["Cache-Control"] == "no-store"
    (event,) = AuditEvent.objects.filter(action="audit.viewed")
    assert (event.actor, event.resource) == (str(officer.user.pk), f"user/{copy.account}")  # type: ignore[attr-defined]
    with audit_database_fails():
        assert officer.get(url).status_code == 503
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [key("another key")]})
    assert [officer.get(page).status_code for page in (url, f"{COPIES}x/change/")] == [404, 404]
    other = sign_in_officer("view_legalhold")
    assert [other.get(page).status_code for page in (COPIES, url)] == [403, 403]
    assert AuditEvent.objects.filter(action="access.denied").count() == 2

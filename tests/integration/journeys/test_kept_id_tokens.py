"""What remains of an ID Token with claims about the person: protocol claims, unless `id_token_hint` is `always`."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connections

from django_phi_oidc import conf
from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.access.part2 import NOTICE, NOTICE_SECTION
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.claims.categories import create_category_permissions
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.retention import scrub_user
from django_phi_oidc.contrib.individual_rights.erasure import erase_person
from django_phi_oidc.contrib.individual_rights.export import export_person
from django_phi_oidc.contrib.key_rotation.encryption_keys import list_encrypted_columns
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.errors import HeldForLegalReasons, RevealRefused
from django_phi_oidc.oidc.jose import parse_compact_jws
from django_phi_oidc.sessions.access_tokens import get_access_token
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation, RevocationStatus
from django_phi_oidc.subjects.models import PairwiseSubject
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.guarded_urls import RAN
from tests.integration.journeys.test_step_up import step_up
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
CLAIMS = {
    "birthdate": {"purpose": "TREAT", "basis": "identity check", "retention": "session"},
    "nickname": {"purpose": "TREAT", "basis": "form of address", "retention": None},
}
UNDECLARED, NEVER_STORED = (f"canary-{randomness.token_b64url(12)}" for _ in range(2))
PERSONAL = {"ssn": UNDECLARED, "nickname": NEVER_STORED, "birthdate": "1984-03-09"}
Declare = Callable[..., None]


@pytest.fixture
def declare(op: DemoProvider, settings: Any) -> Declare:
    """Return a function that declares options of the provider, which puts PERSONAL into each ID Token."""
    settings.ROOT_URLCONF = "tests.integration.journeys.guarded_urls"
    RAN.clear()

    def act(**options: Any) -> None:
        providers = {"default": declaration(op, **options)}
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS=providers, CLAIMS=CLAIMS)

    put_claims(op, PERSONAL)
    return act


def put_claims(op: DemoProvider, claims: dict[str, Any]) -> None:
    def add_claims(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            exchange.claims |= claims

    op.mutate = add_claims


def decrypted_columns() -> Iterator[tuple[str, str]]:
    """Yield the name and the plaintext of each encrypted text of each row of all models."""
    for column in list_encrypted_columns():
        for row in column.field.model._base_manager.using(column.using).all():
            yield str(column), column.field.decrypt(row) or ""


def raw_tables() -> Iterator[tuple[str, str]]:
    for alias in ("default", "phi_audit"):
        connection: Any = connections[alias]
        with connection.cursor() as cursor:
            for table in connection.introspection.table_names(cursor):
                cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
                yield f"{alias} {table}", str(cursor.fetchall())


def find(*values: str) -> set[str]:
    """Return the places in the databases that contain one of the values, also inside of a JWT or of JSON."""
    return {place for place, text in (*decrypted_columns(), *raw_tables()) if contains(text, values)}


def contains(text: str, values: tuple[str, ...]) -> bool:
    if text.count(".") == 2 and text.startswith("eyJ"):
        text += json.dumps(parse_compact_jws(text).payload)
    return any(value in text for value in values)


def refresh() -> None:
    OIDCSession.objects.update(access_token_expires_at=clock.now())
    get_access_token(OIDCSession.objects.get(ended_at=None))


def person() -> tuple[Any, list[PairwiseSubject]]:
    return get_user_model()._default_manager.get(), list(PairwiseSubject.objects.all())


def details(action: str, *, of_token: bool = False) -> list[dict[str, Any]]:
    """Return the details of these events about stored claims, or about claims in an ID Token."""
    found = [json.loads(event.detail) for event in events(action=action)]
    return [detail for detail in found if ("place" in detail) is of_token]


def kept() -> str:
    return OIDCSession.objects.get().decrypt("id_token")


def test_g1_search_finds_a_text_in_each_encrypted_column(op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(op).status == 302
    control = "control-value"
    session = OIDCSession.objects.get()
    for name in ("access_token", "id_token", "id_token_claims"):
        setattr(session, name, control)
        session.save(update_fields=[name])
        assert find(control) == {f"django_phi_oidc_oidcsession.{name}"}
        setattr(session, name, "")
        session.save(update_fields=[name])


@pytest.mark.parametrize("options", [{}, {"end_session_method": "post"}, {"id_token_hint": "never"}])
def test_g1_dropped_claim_is_in_no_column_after_sign_in_refresh_and_step_up(
    options: dict[str, Any], op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(**options)
    assert browser.sign_in(op).status == 302
    assert StoredClaim.objects.get().name == "birthdate"
    assert details("claim.overfetched") == [{"claims": ["ssn"]}]
    assert find(UNDECLARED, NEVER_STORED) == set(), "after the sign-in"
    refresh()
    assert find(UNDECLARED, NEVER_STORED) == set(), "after a refresh"
    browser.headers["Accept"] = "text/html"
    assert step_up(browser, op, "/strong/").status == 302
    assert browser.get("/strong/").status == 200
    assert find(UNDECLARED, NEVER_STORED) == set(), "after a step-up"
    refresh()
    assert find(UNDECLARED, NEVER_STORED) == set(), "after a refresh of the new tokens"
    assert sorted(json.loads(OIDCSession.objects.get().decrypt("id_token_claims"))) == KEPT
    assert details("claim.stored", of_token=True) == []
    assert browser.post("/oidc/logout/").status in (200, 302)
    assert find(UNDECLARED, NEVER_STORED, "1984-03-09") == set(), "after the logout"


KEPT = ["aud", "auth_time", "iss", "nonce", "sid", "sub"]


def test_g1_id_token_with_protocol_claims_alone_is_kept_for_the_logout(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare()
    put_claims(op, {})
    assert browser.sign_in(op).status == 302
    token = kept()
    assert f"id_token_hint={token}" in browser.post("/oidc/logout/").location
    assert OIDCSession.objects.get().id_token_claims is None


def test_g1_id_token_that_is_kept_for_always_is_in_the_log_and_in_the_export(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(id_token_hint="always")
    assert browser.sign_in(op).status == 302
    assert find(UNDECLARED, NEVER_STORED) == {"django_phi_oidc_oidcsession.id_token"}
    in_token = {"claims": ["birthdate", "nickname", "ssn"], "place": "id_token"}
    assert details("login.succeeded")[0]["claims"] == ["birthdate"]
    assert details("claim.stored", of_token=True) == [in_token]
    assert details("claim.overfetched") == [{"claims": ["ssn"]}]
    place = str(OIDCSession.objects.get().pk), str(PairwiseSubject.objects.get().uuid), "default"
    assert exported()["id_token"].items() >= PERSONAL.items()
    assert exported()["tokens"] == ["access token (may contain claims)", "refresh token"]

    refresh()
    assert kept() != ""
    assert details("claim.stored", of_token=True) == [in_token], "the refreshed token has the same claims"
    put_claims(op, {**PERSONAL, "diagnosis": "J45"})
    refresh()
    with_more = {**in_token, "claims": ["birthdate", "diagnosis", "nickname", "ssn"]}
    assert details("claim.stored", of_token=True) == [in_token, with_more]
    token = kept()
    browser.headers["Accept"] = "text/html"
    assert step_up(browser, op, "/strong/").status == 302
    assert kept() not in ("", token)
    assert details("claim.stored", of_token=True) == [in_token, with_more, with_more]
    places = [(event.session, event.subject, event.provider) for event in events(action="claim.stored")]
    assert places == [place] * 3
    token = kept()
    assert f"id_token_hint={token}" in browser.post("/oidc/logout/").location
    assert find(UNDECLARED, NEVER_STORED) == set()
    assert exported()["id_token"] == {}


def test_g1_refresh_without_the_keys_of_the_audit_log_keeps_the_old_id_token(
    op: DemoProvider, browser: Browser, declare: Declare, settings: Any
) -> None:
    declare(id_token_hint="always")
    assert browser.sign_in(op).status == 302
    token, with_keys = kept(), settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"audit_mac": []})
    put_claims(op, {**PERSONAL, "diagnosis": "J45"})
    refresh()
    assert kept() == token, "the event about the new claim can't be written"
    settings.PHI_OIDC = with_keys
    refresh()
    assert kept() != token
    assert "diagnosis" in details("claim.stored", of_token=True)[1]["claims"]


def exported() -> dict[str, Any]:
    """Return the session of the export."""
    user, subjects = person()
    result = export_person(user, subjects, claim_declarations=conf.claims(), origin=Origin(actor="7"), now=clock.now())
    assert result.unreadable_items == ()
    (session,) = json.loads(json.dumps(result.document))["sessions"]
    return dict(session)


def test_g1_export_has_the_kept_claims_and_the_tokens_that_wait_for_revocation(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare()
    assert browser.sign_in(op).status == 302
    assert sorted(exported()["id_token"]) == ["aud", "auth_time", "iss", "sub"], "without what identifies the session"
    assert exported()["to_revoke"] == []
    PendingRevocation.objects.create(
        id=randomness.uuid7(clock.now()),
        provider="default",
        session=OIDCSession.objects.get().pk,
        token="a token",
        token_type_hint="access_token",
        due_at=clock.now() + timedelta(hours=1),
        created_at=clock.now(),
    )
    assert exported()["to_revoke"] == ["access token (may contain claims)"]
    PendingRevocation.objects.update(status=RevocationStatus.ABANDONED, token=None)
    assert exported()["to_revoke"] == []


def test_g8_export_decides_about_each_claim_in_a_kept_id_token(
    op: DemoProvider, browser: Browser, declare: Declare, settings: Any
) -> None:
    declare(id_token_hint="always")
    put_claims(op, {"diagnosis": "F11", "ssn": UNDECLARED})
    diagnosis = {"purpose": "HOPERAT", "basis": "care", "retention": None, "category": "sud", "label": "part2"}
    ssn = {"purpose": "HOPERAT", "basis": "billing", "retention": None}
    declared: dict[str, Any] = {"diagnosis": diagnosis, "ssn": ssn}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, CLAIMS=declared)
    create_category_permissions(using="default")
    assert browser.sign_in(op).status == 302
    user, subjects = person()
    officer: Any = get_user_model()._default_manager.create_user(username="officer")

    def export(*, consent: str = "", purpose: str = "HOPERAT") -> Any:
        account = get_user_model()._default_manager.get(pk=officer.pk)
        given: Any = {"origin": Origin(actor="7"), "now": clock.now(), "actor_user": account, "purpose": purpose}
        return export_person(user, subjects, claim_declarations=conf.claims(), consent=consent, **given).document

    def refused(code: str, name: str, **given: Any) -> bool:
        with pytest.raises(RevealRefused, match=code):
            export(**given)
        denied = events(action="access.denied")
        named = [(event.reason, event.subject, json.loads(event.detail)) for event in denied]
        return (code, str(subjects[0].uuid), {"claim": name}) in named and not events(action="subject.exported")

    assert refused("permission_missing", "diagnosis", consent="Consent/1")
    officer.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim_sud"))
    assert refused("consent_missing", "diagnosis")
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, CLAIMS={"diagnosis": diagnosis})
    assert refused("permission_missing", "ssn", consent="Consent/1"), "it is not declared"
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, CLAIMS=declared)
    for given, consent in (({"consent": "Consent/1"}, {"consent": "Consent/1"}), ({"purpose": "PATRQT"}, {})):
        document = export(**given)
        assert document["sessions"][0]["id_token"]["diagnosis"] == "F11"
        assert document["redisclosure_notice"] == NOTICE
        named = {"claims": ["diagnosis", "ssn"], "notice": NOTICE_SECTION, **consent}
        assert named in details("subject.exported")
    assert browser.post("/oidc/logout/").status in (200, 302)
    officer.user_permissions.clear()
    assert export()["redisclosure_notice"] is None
    assert {"claims": []} in details("subject.exported")


def test_g1_export_names_an_id_token_that_cannot_be_decrypted(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(id_token_hint="always")
    assert browser.sign_in(op).status == 302
    session = OIDCSession.objects.get()
    with connections["default"].cursor() as cursor:
        cursor.execute("UPDATE django_phi_oidc_oidcsession SET id_token = 'damaged'")
    user, subjects = person()
    result = export_person(user, subjects, claim_declarations={}, origin=Origin(), now=clock.now())
    assert result.unreadable_items == (f"ID Token of session {session.pk}",)


def test_g1_erasure_on_request_deletes_the_kept_id_token_of_a_live_session(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(id_token_hint="always")
    assert browser.sign_in(op).status == 302
    user, _ = person()
    assert scrub_user(user, origin=Origin(actor="7"), now=clock.now()) == 4
    assert find(UNDECLARED, NEVER_STORED, "1984-03-09") == set()
    of_token = {"claims": ["birthdate", "nickname", "ssn"], "counts": [1, 1, 1], "place": "id_token"}
    assert details("claim.scrubbed", of_token=True) == [{"cause": "requested", **of_token}]
    assert details("claim.scrubbed") == [{"cause": "requested", "claims": ["birthdate"], "counts": [1]}]
    assert scrub_user(user, origin=Origin(), now=clock.now()) == 0
    refresh()
    assert find(UNDECLARED, NEVER_STORED) == set(), "a refresh does not bring it back"
    put_claims(op, {})
    refresh()
    assert kept() != "", "a token with protocol claims alone is kept again"


def test_g1_erasure_on_request_leaves_an_id_token_with_protocol_claims_alone(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(id_token_hint="always")
    put_claims(op, {})
    assert browser.sign_in(op).status == 302
    user, _ = person()
    token = kept()
    assert scrub_user(user, origin=Origin(), now=clock.now()) == 1, "the stored birthdate"
    assert kept() == token
    assert details("claim.scrubbed", of_token=True) == []


def test_g1_erasure_on_request_deletes_an_id_token_that_cannot_be_decrypted(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(id_token_hint="always")
    assert browser.sign_in(op).status == 302
    StoredClaim.objects.all().delete()
    with connections["default"].cursor() as cursor:
        cursor.execute("UPDATE django_phi_oidc_oidcsession SET id_token = 'damaged'")
    user, _ = person()
    assert scrub_user(user, origin=Origin(), now=clock.now()) == 0
    assert OIDCSession.objects.get().id_token is None
    assert details("claim.scrubbed", of_token=True) == [
        {"cause": "requested", "claims": [], "counts": [], "place": "id_token"}
    ]


def test_g1_legal_hold_keeps_the_id_token_from_an_erasure_on_request(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(id_token_hint="always")
    assert browser.sign_in(op).status == 302
    StoredClaim.objects.all().delete()
    user, (subject,) = person()
    hold = place_hold(subject.uuid, reason="Docket 26-117", until=None, origin=Origin(), now=clock.now())
    with pytest.raises(HeldForLegalReasons):
        scrub_user(user, origin=Origin(), now=clock.now())
    assert contains(kept(), (UNDECLARED,))
    assert events(action="claim.scrubbed") == []
    assert release_hold(hold.pk, origin=Origin(), now=clock.now())
    assert scrub_user(user, origin=Origin(), now=clock.now()) == 3
    assert kept() == ""


def test_g1_erasure_of_the_person_deletes_the_kept_id_token(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(id_token_hint="always")
    assert browser.sign_in(op).status == 302
    user, subjects = person()
    erase_person(user, subjects, origin=Origin(), now=clock.now())
    assert find(UNDECLARED, NEVER_STORED, "1984-03-09") == set()

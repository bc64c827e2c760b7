"""Who may call the endpoint, and what it answers: tokens, isolation, bodies, entity tags, and faults."""

import json
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.contrib.scim.clients import create_client, revoke_client, rotate_token
from django_phi_oidc.contrib.scim.models import SCIMClient, SCIMToken, SCIMUser
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.phi_oidc_settings import override_phi_oidc, override_provider
from tests.support.scim_fixtures import BASE, SCIM, USER_SCHEMA
from tests.support.session_fixtures import events, waiting

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
ORIGIN = Origin(actor="1")
DAY = timedelta(days=1)


def rotate(scim: SCIM, overlap: timedelta) -> SCIM:
    issued = rotate_token(scim.row, lifetime=DAY, overlap=overlap, origin=ORIGIN, now=clock.now())
    return SCIM(token=issued.token, row=issued.client)


def test_token_is_accepted_and_its_use_is_stored(scim: SCIM) -> None:
    assert scim.send("GET", "Users").status_code == 200
    assert SCIMToken.objects.get().last_used_at is not None
    assert scim.token not in str(SCIMToken.objects.values().get()), "Only the digest is stored."


REFUSED_HEADERS = {
    "no header": ("", "scim_token_missing"),
    "another scheme": ("Basic Zm9v", "scim_token_malformed"),
    "no token": ("Bearer ", "scim_token_malformed"),
    "two tokens": ("Bearer a, Bearer b", "scim_token_malformed"),
    "an unknown token": ("Bearer phi_scim_unknown", "scim_token_unknown"),
}


@pytest.mark.parametrize(("header", "reason"), REFUSED_HEADERS.values(), ids=REFUSED_HEADERS)
def test_request_without_a_valid_token_is_refused(header: str, reason: str, scim: SCIM) -> None:
    response = scim.send("GET", "Users", **({"Authorization": header}))
    assert (response.status_code, response["WWW-Authenticate"]) == (401, 'Bearer realm="scim"')
    assert [(event.reason, event.actor, event.outcome) for event in events(Action.SCIM_REFUSED)] == [
        (reason, "", "failure")
    ]


def expire(scim: SCIM) -> None:
    SCIMToken.objects.update(expires_at=clock.now())


WITHDRAWALS: dict[str, tuple[Callable[[SCIM], Any], str]] = {
    "expired": (expire, "scim_token_expired"),
    "rotated out": (lambda scim: rotate(scim, timedelta(0)), "scim_token_expired"),
    "rotated twice": (lambda scim: (rotate(scim, DAY), rotate(scim, DAY)), "scim_token_revoked"),
    "revoked": (lambda scim: revoke_client(scim.row, origin=ORIGIN, now=clock.now()), "scim_token_revoked"),
}


@pytest.mark.parametrize(("withdraw", "reason"), WITHDRAWALS.values(), ids=WITHDRAWALS)
def test_withdrawn_token_is_refused(withdraw: Callable[[SCIM], Any], reason: str, scim: SCIM) -> None:
    assert scim.send("GET", "Users").status_code == 200
    withdraw(scim)
    assert scim.send("GET", "Users").status_code == 401
    assert [(event.reason, event.actor) for event in events(Action.SCIM_REFUSED)] == [(reason, "scim:hr")]


def test_both_tokens_are_valid_during_a_rotation(scim: SCIM) -> None:
    newer = rotate(scim, DAY)
    assert [item.send("GET", "Users").status_code for item in (scim, newer)] == [200, 200]


def test_client_of_a_provider_that_is_not_declared_any_more_is_refused(scim: SCIM, settings: Any) -> None:
    settings.PHI_OIDC = override_provider(settings.PHI_OIDC, scim=None)
    assert scim.send("GET", "Users").status_code == 401
    assert [event.reason for event in events(Action.SCIM_REFUSED)] == ["scim_provider_undeclared"]


FOREIGN_REQUESTS: dict[str, Callable[[SCIM, str, str], Any]] = {
    "get a user": lambda scim, user, group: scim.send("GET", f"Users/{user}"),
    "disable a user": lambda scim, user, group: scim.set_active(user, active=False),
    "replace a user": lambda scim, user, group: scim.send(
        "PUT", f"Users/{user}", {"schemas": [USER_SCHEMA], "userName": "mine", "active": False}
    ),
    "delete a user": lambda scim, user, group: scim.send("DELETE", f"Users/{user}"),
    "get a group": lambda scim, user, group: scim.send("GET", f"Groups/{group}"),
    "change a group": lambda scim, user, group: scim.patch(f"Groups/{group}", {"op": "remove", "path": "members"}),
    "delete a group": lambda scim, user, group: scim.send("DELETE", f"Groups/{group}"),
}


@pytest.mark.parametrize("request_foreign", FOREIGN_REQUESTS.values(), ids=FOREIGN_REQUESTS)
def test_client_of_another_provider_finds_nothing(
    request_foreign: Callable[[SCIM, str, str], Any], connect: Callable[..., SCIM], scim: SCIM
) -> None:
    stranger = connect("stranger", "other")
    user = scim.create("ann", sub="s")
    group = scim.create_group("Nurses", user["id"])
    before = list(SCIMUser.objects.values())
    response = request_foreign(stranger, user["id"], group["id"])
    unknown = stranger.send("GET", f"Users/{uuid.uuid4()}")
    assert (response.status_code, response.content) == (404, unknown.content), "As an id that does not exist."
    assert list(SCIMUser.objects.values()) == before
    assert get_user_model().objects.get().is_active
    refused = [(event.reason, event.actor, event.provider) for event in events(Action.SCIM_REFUSED)]
    assert refused == [("scim_foreign_resource", "scim:stranger", "other")]
    assert request_foreign(scim, user["id"], group["id"]).status_code in (200, 204)


def test_client_of_another_provider_lists_nothing_and_adds_no_foreign_member(
    connect: Callable[..., SCIM], scim: SCIM
) -> None:
    stranger = connect("stranger", "other")
    user = scim.create("ann", sub="s")
    scim.create_group("Nurses", user["id"])
    for path in ("Users", "Groups"):
        assert stranger.send("GET", path).json()["totalResults"] == 0
    body = {"displayName": "Nurses", "members": [{"value": user["id"]}]}
    refused = stranger.send("POST", "Groups", body)
    unknown = stranger.send("POST", "Groups", {**body, "members": [{"value": str(uuid.uuid4())}]})
    assert (refused.status_code, refused.content) == (400, unknown.content)
    recorded = [(event.reason, event.actor) for event in events(Action.SCIM_REFUSED)]
    assert recorded == [("scim_foreign_resource", "scim:stranger")], "Once, and not for the unknown id."
    stranger.create("ann", sub="s")
    assert get_user_model().objects.count() == 2, "The same sub at another provider is another person."


BODIES: dict[str, tuple[bytes, str, int, str]] = {
    "too large": (b"{" + b" " * 2**20 + b"}", "", 413, "scim_body_too_large"),
    "no JSON": (b"userName=ann", "", 400, "scim_body_malformed"),
    "an array": (b"[]", "", 400, "scim_body_malformed"),
    "a duplicate name": (b'{"userName": "a", "userName": "b"}', "", 400, "scim_body_malformed"),
    "a duplicate name in another case": (b'{"userName": "a", "USERNAME": "b"}', "", 400, "scim_body_malformed"),
    "one in an inner object": (
        b'{"userName": "a", "emails": [{"x": {"value": "a", "Value": "b"}}]}',
        "",
        400,
        "scim_body_malformed",
    ),
    "deep nesting": (b'{"a":' * 30 + b"1" + b"}" * 30, "", 400, "scim_body_malformed"),
    "a form": (b"userName=ann", "application/x-www-form-urlencoded", 415, "scim_body_malformed"),
}


@pytest.mark.parametrize(("body", "content_type", "status", "reason"), BODIES.values(), ids=BODIES)
def test_body_is_refused(body: bytes, content_type: str, status: int, reason: str, scim: SCIM) -> None:
    headers = {"Content_Type": content_type} if content_type else {}
    assert scim.send("POST", "Users", body, **headers).status_code == status
    assert [event.reason for event in events(Action.SCIM_REFUSED)] == [reason]


def test_name_in_another_case_is_accepted(scim: SCIM) -> None:
    assert scim.send("POST", "Users", {"USERNAME": "ann"}).json()["userName"] == "ann"


def test_request_by_http_is_refused(scim: SCIM, settings: Any) -> None:
    def send(**options: Any) -> Any:
        return scim.http.get(f"{BASE}/Users", headers={"Authorization": f"Bearer {scim.token}"}, **options)

    assert send(secure=True).status_code == 200
    refused = send()
    assert (refused.status_code, refused.json()["detail"]) == (403, "Requests must come by https.")
    assert [(event.reason, event.actor) for event in events(Action.SCIM_REFUSED)] == [("scim_insecure", "")]
    settings.DEBUG = True
    assert send().status_code == 200


def test_entity_tags(scim: SCIM) -> None:
    user = scim.create("ann")
    path, tag = f"Users/{user['id']}", user["meta"]["version"]
    assert scim.send("GET", path)["ETag"] == tag == 'W/"1"'
    assert scim.send("GET", path, If_None_Match=tag).status_code == 304
    operation = {"op": "replace", "path": "externalId", "value": "x"}
    assert scim.patch(path, operation, If_Match='W/"7"').status_code == 412
    changed = scim.patch(path, operation, If_Match=tag)
    assert (changed.status_code, changed["ETag"]) == (200, 'W/"2"')
    assert scim.patch(path, operation)["ETag"] == 'W/"2"', "Nothing has changed."
    assert scim.send("GET", path, If_None_Match=tag).status_code == 200
    assert scim.send("DELETE", path, If_Match=tag).status_code == 412
    assert scim.send("DELETE", path, If_Match="*").status_code == 204


def test_database_that_is_away_changes_nothing_and_asks_to_repeat(scim: SCIM) -> None:
    user = scim.create("ann")

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "scimuser" in sql and not sql.startswith("SELECT"):
            raise OperationalError("the server is away")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        response = scim.set_active(user["id"], active=False)
    assert (response.status_code, response["Retry-After"]) == (503, "5")
    assert get_user_model().objects.get().is_active
    assert events(Action.SCIM_USER_DISABLED) == []
    assert scim.set_active(user["id"], active=False).status_code == 200
    assert len(events(Action.SCIM_USER_DISABLED)) == 1


def test_no_change_without_its_event(scim: SCIM) -> None:
    """If the outbox can't be written, nothing changes."""
    user = scim.create("ann")

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "auditoutbox" in sql and sql.startswith("INSERT"):
            raise OperationalError("the table is away")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        assert scim.set_active(user["id"], active=False).status_code == 503
        assert scim.send("POST", "Users", {"userName": "bob"}).status_code == 503
    assert get_user_model().objects.get().is_active


def test_leaver_is_out_while_the_audit_database_is_away(scim: SCIM, audit_database_away: Callable[[], Any]) -> None:
    user = scim.create("ann")
    with audit_database_away():
        assert scim.set_active(user["id"], active=False).status_code == 200
    assert not get_user_model().objects.get().is_active
    assert waiting() >= 2, "The events wait in the outbox."


def test_missing_key_of_the_events_refuses_what_grants_and_not_what_withdraws(scim: SCIM, settings: Any) -> None:
    user = scim.create("ann")
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})
    assert scim.send("POST", "Users", {"userName": "bob"}).status_code == 503
    assert scim.set_active(user["id"], active=False).status_code == 200
    assert scim.set_active(user["id"], active=True).status_code == 503
    assert not get_user_model().objects.get().is_active


def test_each_error_is_a_scim_message(scim: SCIM) -> None:
    for method, path, status in (("GET", "Nothing", 404), ("DELETE", "Users", 405), ("POST", "Schemas", 405)):
        response = scim.send(method, path, {})
        assert (response.status_code, response["Content-Type"]) == (status, "application/scim+json")
        assert json.loads(response.content)["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]


def test_response_is_not_stored_and_no_session_is_used(scim: SCIM) -> None:
    response = scim.send("GET", "Users")
    assert response["Cache-Control"] == "no-store"
    assert response.cookies == {}


def test_client_name_is_taken_once(scim: SCIM) -> None:
    with pytest.raises(Exception, match="already"):
        create_client("hr", provider="default", lifetime=DAY, origin=ORIGIN, now=clock.now())
    assert SCIMClient.objects.count() == 1
    assert [event.detail for event in events(Action.SCIM_CLIENT_CHANGED)] == ['{"change":"created"}']

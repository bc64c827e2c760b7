"""Bulk requests: references, errors, limits, and what happens after the time for revocations."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc.audit.events import Action
from django_phi_oidc.contrib.scim.models import SCIMMembership, SCIMUser
from tests.support.scim_fixtures import SCIM
from tests.support.session_fixtures import events

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
SCHEMA = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"


def send_bulk(scim: SCIM, *operations: Any, **options: Any) -> Any:
    return scim.send("POST", "Bulk", {"schemas": [SCHEMA], "Operations": operations, **options})


def create(name: str) -> dict[str, Any]:
    return {"method": "POST", "path": "/Users", "bulkId": name, "data": {"userName": name}}


def test_group_refers_to_users_that_are_created_after_it(scim: SCIM) -> None:
    members = [{"value": "bulkId:ann"}, {"value": "bulkId:bob"}]
    data = {"displayName": "Nurses", "members": members}
    group = {"method": "POST", "path": "/Groups", "bulkId": "g", "data": data}
    response = send_bulk(scim, group, create("ann"), create("bob"))
    assert [item["status"] for item in response.json()["Operations"]] == ["201", "201", "201"]
    assert SCIMMembership.objects.count() == 2


def test_each_operation_is_a_transaction_of_its_own(scim: SCIM) -> None:
    user = scim.create("ann")
    disable = {"op": "replace", "path": "active", "value": False}
    response = send_bulk(
        scim,
        {"method": "PATCH", "path": f"/Users/{user['id']}", "data": {"Operations": [disable]}},
        {"method": "DELETE", "path": "/Users/unknown"},
        {"method": "PUT", "path": f"/Users/{user['id']}", "version": 'W/"9"', "data": {"userName": "b"}},
        {"method": "GET", "path": "/Users"},
        {"method": "POST", "path": "/Users", "data": {"userName": "without a bulkId"}},
        {"method": "POST", "path": "/Groups", "bulkId": "g", "data": {"displayName": "bulkId:nothing"}},
    )
    results = response.json()["Operations"]
    assert [item["status"] for item in results] == ["200", "404", "412", "400", "400", "409"]
    assert all("response" in item for item in results[1:])
    assert not get_user_model().objects.get().is_active


def test_errors_end_the_request(scim: SCIM) -> None:
    wrong = {"method": "DELETE", "path": "/Users/unknown"}
    response = send_bulk(scim, create("ann"), wrong, create("bob"), failOnErrors=1)
    assert [item["status"] for item in response.json()["Operations"]] == ["201", "404"]
    assert SCIMUser.objects.count() == 1


@pytest.mark.parametrize(
    "path", ["http://[", "//\u2100/Users", "https://portal.example/oidc/scim/v2/Users", "/Users/a/b"]
)
def test_path_that_does_not_exist_fails_alone(path: str, scim: SCIM) -> None:
    response = send_bulk(scim, {**create("ann"), "path": path}, create("bob"))
    assert response.status_code == 200
    assert [item["status"] for item in response.json()["Operations"]] == ["404", "201"]
    assert SCIMUser.objects.get().user_name == "bob"


def test_ids_of_another_provider_are_reported(scim: SCIM, connect: Callable[..., SCIM]) -> None:
    user = scim.create("ann")
    stranger = connect("stranger", "other")
    deletion = {"method": "DELETE", "path": f"/Users/{user['id']}"}
    unknown = {"method": "DELETE", "path": f"/Users/{uuid.uuid4()}"}
    results = send_bulk(stranger, deletion, unknown).json()["Operations"]
    assert [item["status"] for item in results] == ["404", "404"]
    assert results[0]["response"] == results[1]["response"]
    assert get_user_model().objects.get().is_active
    refused = [(event.reason, event.actor) for event in events(Action.SCIM_REFUSED)]
    assert refused == [("scim_foreign_resource", "scim:stranger")], "Once, and not for the unknown id."
    data = {"displayName": "Nurses", "members": [{"value": user["id"]}]}
    results = send_bulk(stranger, {"method": "POST", "path": "/Groups", "bulkId": "g", "data": data}).json()
    assert [item["status"] for item in results["Operations"]] == ["400"]
    assert len(events(Action.SCIM_REFUSED)) == 2


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 413)])
def test_number_of_operations_is_limited(count: int, status: int, scim: SCIM) -> None:
    wrong = {"method": "DELETE", "path": "/Users/unknown"}
    assert send_bulk(scim, *[wrong] * count).status_code == status


@pytest.mark.parametrize("body", [{}, {"schemas": [SCHEMA]}, {"schemas": [SCHEMA], "Operations": ["x"]}])
def test_what_is_no_bulk_request_is_refused(body: Any, scim: SCIM) -> None:
    assert scim.send("POST", "Bulk", body).status_code == 400

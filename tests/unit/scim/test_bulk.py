"""Bulk requests: references, errors, limits, and what happens after the time for revocations."""

from typing import Any

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc.scim.models import SCIMMembership, SCIMUser
from tests.support.scim_fixtures import SCIM

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.scim_urls"),
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


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 413)])
def test_number_of_operations_is_limited(count: int, status: int, scim: SCIM) -> None:
    wrong = {"method": "DELETE", "path": "/Users/unknown"}
    assert send_bulk(scim, *[wrong] * count).status_code == status


@pytest.mark.parametrize("body", [{}, {"schemas": [SCHEMA]}, {"schemas": [SCHEMA], "Operations": ["x"]}])
def test_what_is_no_bulk_request_is_refused(body: Any, scim: SCIM) -> None:
    assert scim.send("POST", "Bulk", body).status_code == 400

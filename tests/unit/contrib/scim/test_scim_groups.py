"""Groups: members by the habits of several clients, roles, and entity tags of the members."""

import threading
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, UserManager
from django.db import connection, connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.events import Action
from django_phi_oidc.contrib.scim.models import SCIMGroup, SCIMMembership, SCIMUser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.scim_fixtures import GROUP_SCHEMA, SCIM
from tests.support.session_fixtures import events

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
ADD_BOB = {"op": "add", "path": "members", "value": [{"value": "bob"}]}
MEMBERS: dict[str, tuple[Any, str]] = {
    "add one": ({"op": "add", "path": "members", "value": [{"value": "bob"}]}, "ann bob"),
    "add one that is a member": ({"op": "add", "path": "members", "value": [{"value": "ann"}]}, "ann"),
    "replace": ({"op": "replace", "path": "members", "value": [{"value": "bob"}]}, "bob"),
    "remove all": ({"op": "remove", "path": "members"}, ""),
    "remove by a value path": ({"op": "remove", "path": 'members[value eq "ann"]'}, ""),
    "remove by a value, as Entra ID does": ({"op": "Remove", "path": "members", "value": [{"value": "ann"}]}, ""),
    "remove another one": ({"op": "remove", "path": 'members[value eq "bob"]'}, "ann"),
    "without a path": ({"op": "replace", "value": {"members": [{"value": "bob"}]}}, "bob"),
    "without a path, in another case": ({"op": "add", "value": {"MEMBERS": [{"VALUE": "bob"}]}}, "ann bob"),
    "with the schema": ({"op": "add", "path": f"{GROUP_SCHEMA}:Members", "value": [{"value": "bob"}]}, "ann bob"),
    "one that is no list": ({"op": "add", "path": "members", "value": {"value": "bob"}}, "ann bob"),
    "with all attributes": (
        {"op": "add", "path": "members", "value": [{"value": "bob", "$ref": "../Users/b", "type": "User"}]},
        "ann bob",
    ),
    "replace by nothing": ({"op": "replace", "path": "members", "value": []}, ""),
    "replace by null": ({"op": "replace", "path": "members", "value": None}, ""),
    "remove by a bare comparison": ({"op": "remove", "path": 'members.value eq "ann"'}, ""),
    # As Microsoft's documentation of provisioning shows it
    "remove by a value with an empty $ref": (
        {"op": "Remove", "path": "members", "value": [{"$ref": None, "value": "ann"}]},
        "",
    ),
    "remove what is no id": ({"op": "remove", "path": 'members[value eq "x"]'}, "ann"),
    # Applied by scim2-models
    "as a value of the schema": ({"op": "replace", "value": {GROUP_SCHEMA: {"members": [{"value": "bob"}]}}}, "bob"),
    "all as a value of the schema": ({"op": "replace", "value": {GROUP_SCHEMA: {"members": None}}}, ""),
    "remove by a type": ({"op": "remove", "path": 'members[type eq "User"]'}, ""),
    "remove by one of two": ({"op": "remove", "path": 'members[value eq "ann" or value eq "bob"]'}, ""),
    "remove by all attributes": ({"op": "remove", "path": "members", "value": [{"value": "ann", "type": "User"}]}, ""),
}
SEVERAL: dict[str, tuple[list[Any], str]] = {
    "add, then remove": ([ADD_BOB, {"op": "remove", "path": 'members[value eq "bob"]'}], "ann"),
    "remove, then add": ([{"op": "remove", "path": "members"}, ADD_BOB], "bob"),
    "replace, then remove": (
        [
            {"op": "replace", "path": "members", "value": [{"value": "ann"}, {"value": "bob"}]},
            {"op": "remove", "path": "members", "value": [{"value": "ann"}]},
        ],
        "bob",
    ),
    "add what is no user, then remove it": (
        [
            {"op": "add", "path": "members", "value": [{"value": "x"}]},
            {"op": "remove", "path": 'members[value eq "x"]'},
        ],
        "ann",
    ),
    "add by an id, remove by a type": ([ADD_BOB, {"op": "remove", "path": 'members[type eq "User"]'}], "bob"),
}


@pytest.fixture
def people(scim: SCIM) -> dict[str, str]:
    """Create ann and bob, and return their ids by name."""
    return {name: scim.create(name)["id"] for name in ("ann", "bob")}


def insert_ids(value: Any, people: dict[str, str]) -> Any:
    """Return the value with ids in place of the names."""
    if isinstance(value, dict):
        return {name: insert_ids(item, people) for name, item in value.items()}
    if isinstance(value, list):
        return [insert_ids(item, people) for item in value]
    for name, pk in people.items() if isinstance(value, str) else ():
        value = pk if value == name else value.replace(f'"{name}"', f'"{pk}"')
    return value


@pytest.mark.parametrize(("operation", "expected"), MEMBERS.values(), ids=MEMBERS)
def test_members_by_patch(operation: Any, expected: str, scim: SCIM, people: dict[str, str]) -> None:
    group = scim.create_group("Nurses", people["ann"])
    response = scim.patch(f"Groups/{group['id']}", insert_ids(operation, people))
    assert response.status_code == 200, response.content
    names = {pk: name for name, pk in people.items()}
    members = sorted(names[member["value"]] for member in response.json().get("members", []))
    assert members == expected.split()


@pytest.mark.parametrize(("operations", "expected"), SEVERAL.values(), ids=SEVERAL)
def test_operations_are_applied_in_their_order(
    operations: list[Any], expected: str, scim: SCIM, people: dict[str, str]
) -> None:
    group = scim.create_group("Nurses", people["ann"])
    response = scim.patch(f"Groups/{group['id']}", *insert_ids(operations, people))
    assert response.status_code == 200, response.content
    names = {str(pk): name for name, pk in people.items()}
    assert sorted(names[str(pk)] for pk in SCIMMembership.objects.values_list("member", flat=True)) == expected.split()


def test_members_and_other_attributes_change_together(scim: SCIM, people: dict[str, str]) -> None:
    group = scim.create_group("Nurses", people["ann"])
    value = insert_ids({"members": [{"value": "bob"}], "externalId": "e1"}, people)
    name = {"op": "replace", "path": "displayName", "value": "Doctors"}
    changed = scim.patch(f"Groups/{group['id']}", {"op": "add", "value": value}, name)
    assert changed.status_code == 200, changed.content
    body = changed.json()
    assert (body["displayName"], body["externalId"], len(body["members"])) == ("Doctors", "e1", 2)
    wrong = {"op": "remove", "path": "displayName"}
    assert scim.patch(f"Groups/{group['id']}", {"op": "remove", "path": "members"}, wrong).status_code == 400
    assert SCIMMembership.objects.count() == 2


REFUSED_MEMBERS: dict[str, Any] = {
    "no object": {"op": "add", "path": "members", "value": ["ann"]},
    "a text": {"op": "add", "path": "members", "value": "ann"},
    "no value": {"op": "add", "path": "members", "value": [{"type": "User"}]},
    "an empty value": {"op": "add", "path": "members", "value": [{"value": ""}]},
    "a number": {"op": "add", "path": "members", "value": [{"value": 5}]},
    "a changed id": {"op": "replace", "path": 'members[type eq "User"].value', "value": "bob"},
}


@pytest.mark.parametrize("operation", REFUSED_MEMBERS.values(), ids=REFUSED_MEMBERS)
def test_malformed_member_is_refused(operation: Any, scim: SCIM, people: dict[str, str]) -> None:
    group = scim.create_group("Nurses", people["ann"])
    before = SCIMGroup.objects.values().get()
    assert scim.patch(f"Groups/{group['id']}", insert_ids(operation, people)).status_code == 400
    assert SCIMGroup.objects.values().get() == before


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
def test_number_of_queries_does_not_depend_on_the_members(method: str, scim: SCIM, settings: Any) -> None:
    """Nor on the roles that a rule gives them."""
    rules = [{"claim": "scim_groups", "values": ["Nurses"], "groups": ["clinicians"]}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    clinicians: Any = Group.objects.create(name="clinicians")
    ids = [scim.create(f"user-{number}")["id"] for number in range(40)]
    path = f"Groups/{scim.create_group('Nurses')['id']}"

    def count_queries(members: list[str], *, is_added: bool) -> int:
        values = [{"value": pk} for pk in members]
        if method == "PUT":
            body: Any = {"displayName": "Nurses", "members": values if is_added else []}
        elif is_added:
            body = {"Operations": [{"op": "add", "path": "members", "value": [value]} for value in values]}
        else:
            body = {"Operations": [{"op": "remove", "path": f'members[value eq "{pk}"]'} for pk in members]}
        with CaptureQueriesContext(connection) as queries:
            assert scim.send(method, path, body).status_code == 200
        assert clinicians.user_set.count() == (len(members) if is_added else 0)
        return len(queries)

    few = [count_queries(ids[:2], is_added=True), count_queries(ids[:2], is_added=False)]
    many = [count_queries(ids, is_added=True), count_queries(ids, is_added=False)]
    assert many == few
    assert max(few) < 40


@pytest.mark.parametrize("is_hidden", [False, True], ids=["its manager filters", "a group has no accessor"])
def test_roles_do_not_depend_on_the_managers_of_the_user_model(
    is_hidden: bool, scim: SCIM, people: dict[str, str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [{"claim": "scim_groups", "values": ["Nurses"], "groups": ["clinicians"]}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    clinicians, user_model = Group.objects.create(name="clinicians"), get_user_model()
    user_model.objects.update(is_active=False)
    if is_hidden:
        field: Any = user_model._meta.get_field("groups")
        monkeypatch.setattr(field.remote_field, "related_name", "_hidden_+")
    else:
        get_queryset = UserManager.get_queryset
        monkeypatch.setattr(UserManager, "get_queryset", lambda self: get_queryset(self).filter(is_active=True))
    assignments = user_model.groups.through.objects.filter(group=clinicians)
    group = scim.create_group("Nurses", people["ann"])
    assert assignments.count() == 1
    assert scim.patch(f"Groups/{group['id']}", {"op": "remove", "path": "members"}).status_code == 200
    assert not assignments.exists()
    details = [event.detail for event in events(Action.ROLE_CHANGED) if "clinicians" in event.detail]
    assert details == ['{"added":["clinicians"]}', '{"removed":["clinicians"]}']


def test_last_administrator_of_many_who_leave_keeps_the_role(scim: SCIM, people: dict[str, str], settings: Any) -> None:
    """The others lose theirs, and all get or lose ordinary roles together."""
    administrators = {"claim": "scim_groups", "values": ["Admins"], "groups": ["administrators"], "is_staff": True}
    nurses = {"claim": "scim_groups", "values": ["Admins"], "groups": ["clinicians"]}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": [administrators, nurses]})
    for name in ("administrators", "clinicians"):
        Group.objects.create(name=name)
    group = scim.create_group("Admins", *people.values())
    accounts: Any = get_user_model().objects.order_by("pk")
    assert [account.is_staff for account in accounts] == [True, True]
    scim.patch(f"Groups/{group['id']}", {"op": "remove", "path": "members"})
    assert [account.is_staff for account in accounts.all()] == [False, True]
    names = [sorted(account.groups.values_list("name", flat=True)) for account in accounts.all()]
    assert names == [[], ["administrators"]]
    assert "last_administrator" in events(Action.ALERT_RAISED)[-1].detail


def test_member_that_is_no_user_is_refused(scim: SCIM, people: dict[str, str]) -> None:
    group = scim.create_group("Nurses", people["ann"])
    for value in ("x", group["id"]):
        add = {"op": "add", "path": "members", "value": [{"value": value}]}
        response = scim.patch(f"Groups/{group['id']}", add)
        assert (response.status_code, response.json()["scimType"]) == (400, "invalidValue")
    assert SCIMMembership.objects.count() == 1


def test_put_without_members_keeps_them_and_an_empty_list_removes_them(scim: SCIM, people: dict[str, str]) -> None:
    group = scim.create_group("Nurses", people["ann"])
    scim.send("PUT", f"Groups/{group['id']}", {"displayName": "Nurses of the night"})
    assert SCIMMembership.objects.count() == 1
    scim.send("PUT", f"Groups/{group['id']}", {"displayName": "Nurses", "members": []})
    assert not SCIMMembership.objects.exists()


def test_membership_changes_the_entity_tag_of_the_user(scim: SCIM, people: dict[str, str]) -> None:
    path = f"Users/{people['ann']}"
    before = scim.send("GET", path)["ETag"]
    group = scim.create_group("Nurses", people["ann"])
    assert scim.send("GET", path, If_None_Match=before).status_code == 200
    before = scim.send("GET", path)["ETag"]
    scim.patch(f"Groups/{group['id']}", {"op": "replace", "path": "displayName", "value": "Doctors"})
    assert scim.send("GET", path, If_None_Match=before).json()["groups"][0]["display"] == "Doctors"


def test_name_of_a_group_is_taken_once(scim: SCIM) -> None:
    scim.create_group("Nurses")
    response = scim.send("POST", "Groups", {"displayName": "nurses"})
    assert (response.status_code, response.json()["scimType"]) == (409, "uniqueness")


def test_roles_follow_the_groups(scim: SCIM, people: dict[str, str], settings: Any) -> None:
    rules = [{"claim": "scim_groups", "values": ["Nurses"], "groups": ["clinicians"], "is_staff": True}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    Group.objects.create(name="clinicians")
    # The last administrator keeps the role, so there is another one.
    other: Any = get_user_model().objects.create_user("other", is_staff=True)
    other.groups.add(Group.objects.get())

    def list_roles() -> list[tuple[bool, int]]:
        accounts = get_user_model().objects.exclude(pk=other.pk).order_by("pk")
        return [(account.is_staff, account.groups.count()) for account in accounts]

    group = scim.create_group("Nurses", people["ann"])
    assert list_roles() == [(True, 1), (False, 0)]
    path = f"Groups/{group['id']}"
    scim.patch(path, {"op": "replace", "path": "members", "value": [{"value": people["bob"]}]})
    assert list_roles() == [(False, 0), (True, 1)]
    scim.patch(path, {"op": "replace", "path": "displayName", "value": "Doctors"})
    assert list_roles() == [(False, 0), (False, 0)]
    scim.patch(path, {"op": "replace", "path": "displayName", "value": "Nurses"})
    scim.send("DELETE", f"Users/{people['bob']}")
    assert list_roles() == [(False, 0), (False, 0)]
    assert {event.actor for event in events(Action.ROLE_CHANGED) if "clinicians" in event.detail} == {"scim:hr", ""}


def test_deleted_group_takes_its_roles_away(scim: SCIM, people: dict[str, str], settings: Any) -> None:
    rules = [{"claim": "scim_groups", "values": ["Nurses"], "groups": ["clinicians"]}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    Group.objects.create(name="clinicians")
    group = scim.create_group("Nurses", people["ann"])
    assert scim.send("DELETE", f"Groups/{group['id']}").status_code == 204
    assert not Group.objects.get().user_set.exists()
    details = [event.detail for event in events(Action.SCIM_GROUP_CHANGED)]
    assert details == [
        '{"change":"created","members_added":1,"members_removed":0}',
        '{"change":"deleted","members_added":0,"members_removed":1}',
    ]


@pytest.mark.parametrize(("length", "status"), [(30, 200), (1500, 400)])
def test_length_of_paths_is_limited(length: int, status: int, scim: SCIM, people: dict[str, str]) -> None:
    group = scim.create_group("Nurses", people["ann"])
    terms = " or ".join([f'value eq "{people["ann"]}"'] * length)
    for name in ("path", "PATH"):
        operation = {"op": "replace", name: f"members[{terms}].type", "value": "User"}
        response = scim.patch(f"Groups/{group['id']}", operation)
        assert response.status_code == status, response.content
        assert response.json().get("scimType") == (None if status == 200 else "invalidPath")


needs_row_locks = pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite has one writer at a time.")


def run_meanwhile(operation: Any) -> threading.Thread:
    """Run the operation in another thread until it has ended, or waits for a lock."""

    def run() -> None:
        operation()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(1)
    return thread


@needs_row_locks
def test_member_that_leaves_two_groups_at_once_loses_their_role(
    scim: SCIM, people: dict[str, str], settings: Any
) -> None:
    rules = [{"claim": "scim_groups", "values": ["Nurses", "Doctors"], "groups": ["clinicians"]}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    Group.objects.create(name="clinicians")
    paths = [f"Groups/{scim.create_group(name, people['ann'])['id']}" for name in ("Nurses", "Doctors")]
    assert Group.objects.get().user_set.count() == 1
    with transaction.atomic():
        scim.patch(paths[0], {"op": "remove", "path": "members"})
        thread = run_meanwhile(lambda: scim.patch(paths[1], {"op": "remove", "path": "members"}))
    thread.join()
    assert not SCIMMembership.objects.exists()
    assert not Group.objects.get().user_set.exists()


@needs_row_locks
def test_user_that_is_deleted_meanwhile_is_no_member(scim: SCIM, people: dict[str, str]) -> None:
    group = scim.create_group("Nurses")
    add = {"op": "add", "path": "members", "value": [{"value": people["ann"]}]}
    statuses: list[int] = []
    with transaction.atomic():
        scim.send("DELETE", f"Users/{people['ann']}")
        thread = run_meanwhile(lambda: statuses.append(scim.patch(f"Groups/{group['id']}", add).status_code))
        assert thread.is_alive()
    thread.join()
    assert statuses == [400]
    assert not SCIMMembership.objects.exists()


@needs_row_locks
def test_flag_that_is_granted_meanwhile_is_withdrawn_with_the_group(
    scim: SCIM, people: dict[str, str], settings: Any
) -> None:
    rules = [{"claim": "scim_groups", "values": ["Nurses"], "groups": ["clinicians"]}]
    rules.append({"claim": "scim_groups", "values": ["Nurses"], "is_staff": True})  # type: ignore[dict-item]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    clinicians: Any = Group.objects.create(name="clinicians")
    get_user_model().objects.create_user("other", is_staff=True)
    path = f"Groups/{scim.create_group('Nurses', people['ann'])['id']}"
    account: Any = clinicians.user_set.get()
    account.is_staff = False
    account.save()
    with transaction.atomic():
        account.is_staff = True
        account.save()
        account.groups.clear()
        thread = run_meanwhile(lambda: scim.patch(path, {"op": "remove", "path": "members"}))
        assert thread.is_alive()
    thread.join()
    account.refresh_from_db()
    assert not account.is_staff


@needs_row_locks
def test_user_can_be_deleted_while_a_group_changes(scim: SCIM, people: dict[str, str]) -> None:
    """Both lock the group first, so there is no deadlock."""
    group = scim.create_group("Nurses", people["ann"])
    statuses: list[int] = []
    with transaction.atomic():
        SCIMGroup.objects.select_for_update().get()
        deletion = f"Users/{people['ann']}"
        thread = run_meanwhile(lambda: statuses.append(scim.send("DELETE", deletion).status_code))
        renaming = {"op": "replace", "path": "displayName", "value": "Doctors"}
        assert scim.patch(f"Groups/{group['id']}", renaming).status_code == 200
    thread.join()
    assert statuses == [204]
    assert SCIMUser.objects.filter(deleted_at=None).count() == 1

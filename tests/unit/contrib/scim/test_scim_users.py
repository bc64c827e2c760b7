"""Users: what PATCH and PUT change, what is stored, and what becomes of the account."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import transaction

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.scim.declaration import SUBJECT_SCHEMA
from django_phi_oidc.contrib.scim.models import SCIMUser
from django_phi_oidc.crypto import keyring
from django_phi_oidc.subjects.linking import link_existing_user
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.scim_fixtures import SCIM, USER_SCHEMA, connect_client, declare_scim
from tests.support.session_fixtures import events
from tests.unit.contrib.scim.test_scim_groups import needs_row_locks, run_meanwhile

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]
OFF: dict[str, Any] = {"active": False}
PATCHES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "replace with a path": ([{"op": "replace", "path": "active", "value": False}], OFF),
    "replace without a path": ([{"op": "replace", "value": {"active": False}}], OFF),
    "add": ([{"op": "add", "path": "externalId", "value": "new"}], {"externalId": "new"}),
    "remove": ([{"op": "remove", "path": "externalId"}], {"externalId": None}),
    "several": (
        [{"op": "replace", "path": "userName", "value": "Bea"}, {"op": "replace", "path": "active", "value": False}],
        {"userName": "Bea", **OFF},
    ),
    "a path with the schema": ([{"op": "replace", "path": f"{USER_SCHEMA}:active", "value": False}], OFF),
    "the path in another case": ([{"op": "replace", "path": "ACTIVE", "value": False}], OFF),
    # Habits of Entra ID
    "a capital letter": ([{"op": "Replace", "path": "active", "value": False}], OFF),
    "a Boolean as a string": ([{"op": "Replace", "path": "active", "value": "False"}], OFF),
    "a Boolean as a string without a path": ([{"op": "Replace", "value": {"active": "False"}}], OFF),
    "an attribute that is not stored": ([{"op": "Add", "path": "displayName", "value": "Ann"}], {}),
    "a value path that is not stored": (
        [{"op": "Add", "path": 'emails[type eq "work"].value', "value": "a@b.example"}],
        {},
    ),
    "an unknown extension": (
        [
            {
                "op": "Add",
                "path": "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User:department",
                "value": "ICU",
            }
        ],
        {},
    ),
}
REFUSED_PATCHES: dict[str, tuple[Any, str]] = {
    "no operations": ([], "invalidValue"),
    "an unknown operation": ([{"op": "move", "path": "active", "value": True}], "invalidValue"),
    "remove without a path": ([{"op": "remove"}], "noTarget"),
    "remove what is required": ([{"op": "remove", "path": "userName"}], "mutability"),
    "replace what is read-only": ([{"op": "replace", "path": "id", "value": "x"}], "mutability"),
    "replace the groups": ([{"op": "replace", "path": "groups", "value": []}], "mutability"),
    "a malformed path": ([{"op": "replace", "path": "active[", "value": True}], "invalidPath"),
    "no Boolean": ([{"op": "replace", "path": "active", "value": "perhaps"}], "invalidValue"),
    "an empty name": ([{"op": "replace", "path": "userName", "value": ""}], "invalidValue"),
    "a line separator": ([{"op": "replace", "path": "userName", "value": "a\u2028b"}], "invalidValue"),
    "a name that is too long": ([{"op": "replace", "path": "userName", "value": "a" * 256}], "invalidValue"),
    "the second of two": (
        [{"op": "replace", "path": "active", "value": False}, {"op": "remove", "path": "userName"}],
        "mutability",
    ),
}


@pytest.mark.parametrize(("operations", "expected"), PATCHES.values(), ids=PATCHES)
def test_patch(operations: list[dict[str, Any]], expected: dict[str, Any], scim: SCIM) -> None:
    user = scim.create("Ann", externalId="e1")
    response = scim.patch(f"Users/{user['id']}", *operations)
    assert response.status_code == 200, response.content
    before = {"userName": "Ann", "externalId": "e1", "active": True}
    after = {name: response.json().get(name) for name in before}
    assert after == {**before, **expected}
    assert get_user_model().objects.get().is_active is after["active"]


@pytest.mark.parametrize(("operations", "scim_type"), REFUSED_PATCHES.values(), ids=REFUSED_PATCHES)
def test_patch_is_refused_as_a_whole(operations: Any, scim_type: str, scim: SCIM) -> None:
    user = scim.create("Ann")
    before = SCIMUser.objects.values().get()
    response = scim.patch(f"Users/{user['id']}", *operations)
    assert (response.status_code, response.json().get("scimType")) == (400, scim_type), response.content
    assert SCIMUser.objects.values().get() == before
    assert get_user_model().objects.get().is_active


def test_only_needed_attributes_are_stored(scim: SCIM) -> None:
    secrets = {"displayName": "Ann Meier", "emails": [{"value": "ann.meier@clinic.example"}], "password": "geheim"}
    user = scim.create("u-4711", sub="sub-of-ann", **secrets)
    assert user.keys() == {"schemas", "id", "meta", "userName", "active"}
    rows = [SCIMUser.objects.values().get(), get_user_model().objects.values().get()]
    stored = json.dumps(rows, default=str)
    assert not any(text in stored for text in ("Meier", "geheim", "sub-of-ann"))
    assert not get_user_model().objects.get().has_usable_password()


def test_sub_links_the_account_and_never_changes(scim: SCIM) -> None:
    user = scim.create("ann", sub="s1")
    assert PairwiseSubject.objects.get().user_id == SCIMUser.objects.get().user_id
    path = f"Users/{user['id']}"
    same = {"schemas": [USER_SCHEMA], "userName": "ann", SUBJECT_SCHEMA: {"sub": "s1"}}
    assert scim.send("PUT", path, same).status_code == 200
    other = scim.send("PUT", path, {**same, SUBJECT_SCHEMA: {"sub": "s2"}})
    assert (other.status_code, other.json()["scimType"]) == (400, "mutability")
    assert PairwiseSubject.objects.count() == 1


def test_sub_that_comes_later_links_the_account(scim: SCIM) -> None:
    user = scim.create("ann")
    assert not PairwiseSubject.objects.exists()
    late = {"op": "add", "path": f"{SUBJECT_SCHEMA}:sub", "value": "s1"}
    assert scim.patch(f"Users/{user['id']}", late).status_code == 200
    assert PairwiseSubject.objects.get().user_id == SCIMUser.objects.get().user_id


def test_sub_finds_the_account_that_the_person_has_already(scim: SCIM) -> None:
    first = scim.create("ann", sub="s1")
    scim.send("DELETE", f"Users/{first['id']}")
    SCIMUser.objects.all().delete()
    scim.create("ann again", sub="s1")
    assert get_user_model().objects.count() == 1


def test_deleted_user_leaves_no_names_and_comes_back_by_the_sub(scim: SCIM) -> None:
    first = scim.create("ann", sub="s1", externalId="e1")
    assert scim.send("DELETE", f"Users/{first['id']}").status_code == 204
    assert [SCIMUser.objects.values_list("user_name", "user_name_key", "external_id").get()] == [("", "", "")]
    assert scim.create("ann")["id"] != first["id"], "The name alone is that of another user."
    again = scim.create("ann again", sub="s1", externalId="e2")
    assert (again["id"], again["externalId"]) == (first["id"], "e2")
    assert get_user_model().objects.filter(is_active=True).count() == 2


def make_administrator(account: Any, role: str) -> None:
    if role in ("is_staff", "is_superuser"):
        setattr(account, role, True)
        account.save()
    else:
        group, is_new = Group.objects.get_or_create(name=role)
        if is_new and role == "Security officer":
            group.permissions.add(Permission.objects.get(codename="manage_scimclient"))
        account.groups.add(group)


ROLES_OF_LEAVERS = {"is_superuser": True, "is_staff": True, "Security officer": True, "Nurses": False}


def declare_groups(settings: Any, scim: SCIM, *members: str, **flags: bool) -> Any:
    """Create the groups `Officers` of SCIM, with these members, and `officers`, which it is mapped to; return this."""
    rules = [{"claim": "scim_groups", "values": ["Officers"], "groups": ["officers"], **flags}]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ROLES={"default": rules})
    officers = Group.objects.create(name="officers")
    scim.create_group("Officers", *members)
    return officers


@pytest.mark.parametrize("request_end", ["PATCH", "DELETE"])
def test_last_security_officer_by_a_scim_group_is_disabled_with_an_alert(
    request_end: str, scim: SCIM, settings: Any
) -> None:
    users = [scim.create(name)["id"] for name in ("ann", "bob")]
    officers = declare_groups(settings, scim, *users)
    officers.permissions.add(Permission.objects.get(codename="manage_scimclient"))

    def leave(user: str) -> list[dict[str, Any]]:
        scim.send("DELETE", f"Users/{user}") if request_end == "DELETE" else scim.set_active(user, active=False)
        return [json.loads(alert.detail) for alert in events(Action.ALERT_RAISED)]

    assert leave(users[0]) == []
    assert leave(users[1]) == [{"rule": "last_administrator_disabled", "roles": ["officers"]}]
    assert officers.user_set.count() == (0 if request_end == "DELETE" else 2)


@needs_row_locks
@pytest.mark.parametrize("flags", [{}, {"is_staff": True}], ids=["accounts in their order", "groups before accounts"])
def test_two_administrators_can_be_deleted_at_once(flags: dict[str, bool], scim: SCIM, settings: Any) -> None:
    """Without a deadlock: groups are locked before accounts, and accounts by their keys."""
    users = [scim.create(name)["id"] for name in ("ann", "bob")]
    first, second = get_user_model().objects.order_by("pk")
    for account in (first, second):
        make_administrator(account, "is_superuser")
    officers = declare_groups(settings, scim, *users, **flags)
    statuses: list[int] = []
    with transaction.atomic():
        row = officers if flags else first
        type(row)._default_manager.select_for_update(no_key=True).get(pk=row.pk)
        thread = run_meanwhile(lambda: statuses.append(scim.send("DELETE", f"Users/{users[1]}").status_code))
        assert thread.is_alive()
        get_user_model().objects.select_for_update(no_key=True).get(pk=second.pk)
    thread.join()
    assert statuses == [204]


@pytest.mark.parametrize(("role", "is_alert"), ROLES_OF_LEAVERS.items(), ids=ROLES_OF_LEAVERS)
@pytest.mark.parametrize("request_end", ["PATCH", "DELETE"])
def test_last_administrator_is_disabled_with_an_alert(request_end: str, role: str, is_alert: bool, scim: SCIM) -> None:
    users = [scim.create(name) for name in ("ann", "bob", "cy")]
    accounts: Any = get_user_model().objects.order_by("pk")
    inactive = accounts[2]
    for account in accounts.all():
        make_administrator(account, role)
    inactive.is_active = False
    inactive.save()

    def leave(user: Any) -> list[dict[str, Any]]:
        path = f"Users/{user['id']}"
        end = scim.send("DELETE", path) if request_end == "DELETE" else scim.set_active(user["id"], active=False)
        assert end.status_code in (200, 204)
        return [json.loads(alert.detail) for alert in events(Action.ALERT_RAISED)]

    assert leave(users[0]) == []
    expected = [{"rule": "last_administrator_disabled", "roles": [role]}] if is_alert else []
    assert leave(users[1]) == expected
    assert not get_user_model().objects.filter(is_active=True).exists()
    if is_alert:
        (alert,) = events(Action.ALERT_RAISED)
        assert (alert.actor, alert.resource) == ("scim:hr", f"user/{accounts[1].pk}")


@needs_row_locks
def test_two_last_administrators_who_leave_at_once_raise_one_alert(scim: SCIM) -> None:
    """The second one waits for the first, and is the last one then."""
    users = [scim.create(name) for name in ("ann", "bob")]
    for account in get_user_model().objects.all():
        make_administrator(account, "is_superuser")
    with transaction.atomic():
        scim.set_active(users[0]["id"], active=False)
        thread = run_meanwhile(lambda: scim.set_active(users[1]["id"], active=False))
        assert thread.is_alive()
    thread.join()
    assert not get_user_model().objects.filter(is_active=True).exists()
    rules = [json.loads(alert.detail)["rule"] for alert in events(Action.ALERT_RAISED)]
    assert rules == ["last_administrator_disabled"]


def test_user_name_and_external_id_and_address_link_nothing(scim: SCIM) -> None:
    """An account that has the same name or address as a SCIM user is another person's."""
    account = get_user_model().objects.create_user("ann", email="ann@clinic.example")
    scim.create("ann", externalId=str(account.pk), emails=[{"value": "ann@clinic.example", "primary": True}])
    assert SCIMUser.objects.get().user_id != account.pk
    assert not PairwiseSubject.objects.exists()


INVALID_SUBS = {"an address": "ann@clinic.example", "too long": "s" * 256, "not ASCII": "ü"}


@pytest.mark.parametrize("sub", INVALID_SUBS.values(), ids=INVALID_SUBS)
def test_sub_that_a_sign_in_would_refuse_is_refused(sub: str, scim: SCIM) -> None:
    body = {"schemas": [USER_SCHEMA], "userName": "ann", SUBJECT_SCHEMA: {"sub": sub}}
    response = scim.send("POST", "Users", body)
    assert (response.status_code, response.json()["scimType"]) == (400, "invalidValue")
    assert not get_user_model().objects.exists()
    assert sub not in response.content.decode()


def test_with_invitations_a_sub_is_not_declared_and_codes_link(settings: Any) -> None:
    declare_scim(settings, subject="invitation")
    scim = connect_client()
    user = scim.create("ann", sub="s1")
    assert not PairwiseSubject.objects.exists(), "The extension is not declared, so it is not stored."
    ids = [schema["id"] for schema in scim.send("GET", "Schemas").json()["Resources"]]
    assert SUBJECT_SCHEMA not in ids
    assert scim.set_active(user["id"], active=False).status_code == 200
    assert not ActivationCode.objects.exists()


def test_duplicate_user_is_refused_and_repeated_changes_do_nothing(scim: SCIM) -> None:
    user = scim.create("Ann", sub="s1")
    for body in ({"userName": "aNN"}, {"userName": "bea", SUBJECT_SCHEMA: {"sub": "s1"}}):
        response = scim.send("POST", "Users", body)
        assert (response.status_code, response.json()["scimType"]) == (409, "uniqueness")
    assert get_user_model().objects.count() == 1
    for active, action in ((False, Action.SCIM_USER_DISABLED), (True, Action.SCIM_USER_ENABLED)):
        for _ in range(2):
            assert scim.set_active(user["id"], active=active).status_code == 200
        assert len(events(action)) == 1


def test_change_that_arrives_late_is_refused_by_its_entity_tag(scim: SCIM) -> None:
    """Disabled, then the older request to enable arrives."""
    user = scim.create("ann")
    scim.set_active(user["id"], active=False)
    enable = {"op": "replace", "path": "active", "value": True}
    assert scim.patch(f"Users/{user['id']}", enable, If_Match=user["meta"]["version"]).status_code == 412
    assert not get_user_model().objects.get().is_active


def test_administrators_deactivation_is_not_undone(scim: SCIM) -> None:
    user = scim.create("ann")
    account = get_user_model().objects.get()
    account.is_active = False
    account.save()
    body = {"schemas": [USER_SCHEMA], "userName": "ann", "active": True}
    assert scim.send("PUT", f"Users/{user['id']}", body).status_code == 200
    scim.set_active(user["id"], active=False)
    scim.set_active(user["id"], active=True)
    account.refresh_from_db()
    assert not account.is_active
    assert events(Action.SCIM_USER_ENABLED) == []


def test_later_decision_of_an_administrator_is_not_undone(scim: SCIM) -> None:
    """A client disables the account, an administrator activates it, and later deactivates it."""
    user = scim.create("ann")
    scim.set_active(user["id"], active=False)
    account = get_user_model().objects.get()
    for is_active in (True, False):
        account.is_active = is_active
        account.save()
    scim.set_active(user["id"], active=True)
    account.refresh_from_db()
    assert not account.is_active
    assert events(Action.SCIM_USER_ENABLED) == []


def test_put_without_active_leaves_a_disabled_user_disabled(scim: SCIM) -> None:
    user = scim.create("ann")
    scim.set_active(user["id"], active=False)
    scim.send("PUT", f"Users/{user['id']}", {"schemas": [USER_SCHEMA], "userName": "bea"})
    scim.patch(f"Users/{user['id']}", {"op": "remove", "path": "active"})
    assert not get_user_model().objects.get().is_active


def test_local_account_can_not_be_managed(scim: SCIM, settings: Any) -> None:
    scim.create("ann", sub="s1")
    SCIMUser.objects.all().delete()
    account = get_user_model().objects.get()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, BREAK_GLASS_ACCOUNTS=[account.get_username()])
    body = {"schemas": [USER_SCHEMA], "userName": "ann", SUBJECT_SCHEMA: {"sub": "s1"}}
    assert scim.send("POST", "Users", body).status_code == 409


def test_account_that_becomes_a_local_account_is_no_longer_managed(scim: SCIM, settings: Any) -> None:
    user = scim.create("ann")
    account = get_user_model().objects.get()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, BREAK_GLASS_ACCOUNTS=[account.get_username()])
    assert scim.set_active(user["id"], active=False).status_code == 409
    assert scim.send("DELETE", f"Users/{user['id']}").status_code == 409
    assert get_user_model().objects.get().is_active
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, BREAK_GLASS_ACCOUNTS=["another"])
    assert scim.set_active(user["id"], active=False).status_code == 200


def test_account_of_another_providers_user_can_not_be_taken(scim: SCIM, connect: Callable[..., SCIM]) -> None:
    """An account that is linked to persons of two providers is managed by the clients of the first one."""
    scim.create("ann", sub="s1")
    other = connect("stranger", "other")
    link_existing_user(
        get_user_model().objects.get(),
        sub="o1",
        provider=conf.providers()["other"],
        keys=keyring.get_keys("subject"),
        origin=Origin(),
        now=clock.now(),
    )
    body = {"schemas": [USER_SCHEMA], "userName": "ann", SUBJECT_SCHEMA: {"sub": "o1"}}
    assert other.send("POST", "Users", body).status_code == 409
    assert SCIMUser.objects.get().provider == "default"


def test_events_name_the_account_and_not_the_person(scim: SCIM) -> None:
    user = scim.create("ann.meier", externalId="e-4711", sub="s1")
    scim.patch(f"Users/{user['id']}", {"op": "replace", "path": "externalId", "value": "e-4712"})
    scim.send("DELETE", f"Users/{user['id']}")
    account = get_user_model().objects.get()
    for action, detail in (
        (Action.SCIM_USER_CREATED, {"active": True}),
        (Action.SCIM_USER_CHANGED, {"attributes": ["externalId"]}),
        (Action.SCIM_USER_DELETED, {}),
        (Action.SCIM_USER_DISABLED, {}),
    ):
        (event,) = events(action)
        assert (event.actor, event.resource, json.loads(event.detail)) == ("scim:hr", f"user/{account.pk}", detail)

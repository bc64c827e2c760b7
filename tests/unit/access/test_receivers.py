"""Each change of a role leaves an event in its transaction, by the admin as by other code."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.core import serializers
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, transaction
from django.db.models import F, Q, Value
from django.db.models.signals import pre_save
from django.forms import inlineformset_factory
from django.test.utils import CaptureQueriesContext, isolate_apps
from django.utils import timezone

from django_phi_oidc.access.receivers import observe_deletions
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.audit.set_aside_events import list_set_aside_events, retry_events
from django_phi_oidc.errors import KeyMissing
from tests.support.concurrent_transaction import transaction_beside
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import ScriptedOP, SignedIn, op, sign_in  # noqa: F401 -- fixtures

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

REVEAL = "django_phi_oidc.reveal_storedclaim"
VIEW = "auth.view_user"


@pytest.fixture
def user() -> Any:
    return get_user_model().objects.create_user("amina")


@pytest.fixture
def officers() -> Group:
    return Group.objects.create(name="officers")


def permission(name: str) -> Permission:
    app_label, codename = name.split(".")
    return Permission.objects.get(content_type__app_label=app_label, codename=codename)


def list_events() -> list[tuple[str, dict[str, Any]]]:
    """Return the resource and the detail of each event of a role, oldest first, and forget them."""
    rows = AuditEvent.objects.filter(action=Action.ROLE_CHANGED).order_by("id")
    events = [(row.resource, json.loads(row.detail)) for row in rows]
    new = events[len(_SEEN) :]
    _SEEN.extend(new)
    return new


_SEEN: list[Any] = []


@pytest.fixture(autouse=True)
def _forget_seen() -> None:
    _SEEN.clear()


def add_row(table: Any, **columns: Any) -> None:
    if not table.objects.filter(**columns).exists():
        table(**columns).save()


def save_inline(user: Any, group: Any, *, delete: bool = False) -> None:
    """Save the form of an inline of the admin for the members of a group, or check its box for a deletion."""
    row = group.user_set.through.objects.filter(group=group).first()
    form_set = inlineformset_factory(Group, group.user_set.through, fields=["user"], extra=0 if row else 1)
    prefix = form_set.get_default_prefix()
    data = {f"{prefix}-TOTAL_FORMS": 1, f"{prefix}-INITIAL_FORMS": 1 if row else 0, f"{prefix}-0-user": user.pk}
    data |= {f"{prefix}-0-id": row.pk if row else "", f"{prefix}-0-DELETE": "on" if delete else ""}
    bound = form_set(data if row or not delete else {**data, f"{prefix}-TOTAL_FORMS": 0}, instance=group)
    assert bound.is_valid(), bound.errors
    bound.save()


Change = Callable[[Any, Any], Any]
"""Changes a role of the user, or of the group."""
# what is done, and the events: resource ("user" or "group") and detail
CHANGES: dict[str, tuple[Change, list[tuple[str, dict[str, list[str]]]]]] = {
    "group added": (lambda user, group: user.groups.add(group), [("user", {"added": ["officers"]})]),
    "member added": (lambda user, group: group.user_set.add(user), [("user", {"added": ["officers"]})]),
    "groups set": (lambda user, group: user.groups.set([group]), [("user", {"added": ["officers"]})]),
    "members set": (lambda user, group: group.user_set.set([user]), [("user", {"added": ["officers"]})]),
    "permission added": (
        lambda user, group: user.user_permissions.add(permission(REVEAL)),
        [("user", {"permissions_added": [REVEAL]})],
    ),
    "holder added": (
        lambda user, group: permission(REVEAL).user_set.add(user),
        [("user", {"permissions_added": [REVEAL]})],
    ),
    "permission added to the group": (
        lambda user, group: group.permissions.add(permission(REVEAL), permission(VIEW)),
        [("group", {"permissions_added": [VIEW, REVEAL]})],
    ),
    "group added to the permission": (
        lambda user, group: permission(REVEAL).group_set.add(group),
        [("group", {"permissions_added": [REVEAL]})],
    ),
    "group by an inline": (save_inline, [("user", {"added": ["officers"]})]),
    "group by a row": (
        lambda user, group: add_row(user.groups.through, user=user, group=group),
        [("user", {"added": ["officers"]})],
    ),
    "permission by a row": (
        lambda user, group: add_row(user.user_permissions.through, user=user, permission=permission(VIEW)),
        [("user", {"permissions_added": [VIEW]})],
    ),
    "permission of the group by a row": (
        lambda user, group: add_row(group.permissions.through, group=group, permission=permission(VIEW)),
        [("group", {"permissions_added": [VIEW]})],
    ),
    "staff": (lambda user, group: save(user, is_staff=True), [("user", {"granted": ["is_staff"]})]),
    "superuser and staff": (
        lambda user, group: save(user, is_superuser=True, is_staff=True),
        [("user", {"granted": ["is_staff", "is_superuser"]})],
    ),
    "superuser by update_fields": (
        lambda user, group: save(user, ["is_superuser"], is_superuser=True),
        [("user", {"granted": ["is_superuser"]})],
    ),
    "superuser by an expression": (
        lambda user, group: save(user, is_superuser=Value(True)),
        [("user", {"granted": ["is_superuser"]})],
    ),
    "superuser by a new instance": (
        lambda user, group: type(user)(pk=user.pk, username="amina", is_superuser=True).save(),
        [("user", {"granted": ["is_superuser"]})],
    ),
    "deactivation": (lambda user, group: save(user, is_active=False), [("user", {"withdrawn": ["is_active"]})]),
}


def save(user: Any, update_fields: list[str] | None = None, **values: Any) -> None:
    for name, value in values.items():
        setattr(user, name, value)
    user.save(update_fields=update_fields)


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("in_transaction", [False, True])
def test_g2_each_change_of_a_role_is_recorded_once(
    user: Any, officers: Group, change: Change, expected: list[tuple[str, Any]], in_transaction: bool
) -> None:
    keys = {"user": f"user/{user.pk}", "group": f"group/{officers.pk}"}
    expected = [(keys[kind], detail) for kind, detail in expected]
    if in_transaction:
        with transaction.atomic():
            change(user, officers)
    else:
        change(user, officers)
    assert list_events() == expected
    user = get_user_model().objects.get(pk=user.pk)
    change(user, officers)
    assert list_events() == [], "nothing changed"


def delete_rows(table: Any) -> None:
    for row in table.objects.all():
        row.delete()


def define_proxy(model: type[Any]) -> Any:
    """Define a proxy model after the start of the process."""
    with isolate_apps("django.contrib.auth"):
        meta = type("Meta", (), {"proxy": True, "app_label": "auth"})
        return type(model)(f"{model.__name__}Proxy", (model,), {"Meta": meta, "__module__": __name__})


REMOVALS: dict[str, tuple[Change, list[str]]] = {
    "group removed": (lambda user, group: user.groups.remove(group), ["removed"]),
    "member removed": (lambda user, group: group.user_set.remove(user), ["removed"]),
    "groups cleared": (lambda user, group: user.groups.clear(), ["removed"]),
    "members cleared": (lambda user, group: group.user_set.clear(), ["removed"]),
    "permission removed": (lambda user, group: user.user_permissions.set([]), ["user_permissions"]),
    "holders cleared": (lambda user, group: permission(VIEW).user_set.clear(), ["user_permissions"]),
    "permission of the group removed": (lambda user, group: group.permissions.clear(), ["permissions"]),
    "groups of the permission cleared": (lambda user, group: permission(REVEAL).group_set.clear(), ["permissions"]),
    "permission deleted": (
        lambda user, group: Permission.objects.filter(codename="view_user").delete(),
        ["user_permissions"],
    ),
    "group deleted": (lambda user, group: Group.objects.all().delete(), ["permissions", "removed"]),
    "group deleted by a proxy": (
        lambda user, group: define_proxy(Group).objects.all().delete(),
        ["permissions", "removed"],
    ),
    "group removed by an inline": (lambda user, group: save_inline(user, group, delete=True), ["removed"]),
    "group removed by its row": (lambda user, group: delete_rows(user.groups.through), ["removed"]),
    "permission removed by its row": (
        lambda user, group: delete_rows(user.user_permissions.through),
        ["user_permissions"],
    ),
    "permission of the group removed by its row": (
        lambda user, group: delete_rows(group.permissions.through),
        ["permissions"],
    ),
}


@pytest.mark.parametrize(("remove", "expected"), REMOVALS.values(), ids=REMOVALS)
def test_g2_each_removal_of_a_role_is_recorded_once(
    user: Any, officers: Group, remove: Change, expected: list[str]
) -> None:
    user.groups.add(officers)
    user.user_permissions.add(permission(VIEW))
    officers.permissions.add(permission(REVEAL))
    list_events()
    events = {
        "removed": (f"user/{user.pk}", {"removed": ["officers"]}),
        "user_permissions": (f"user/{user.pk}", {"permissions_removed": [VIEW]}),
        "permissions": (f"group/{officers.pk}", {"permissions_removed": [REVEAL]}),
    }
    remove(user, officers)
    assert sorted(list_events()) == sorted(events[name] for name in expected)
    remove(user, officers)
    assert list_events() == [], "nothing was left"


def test_g2_creation_of_a_superuser_is_recorded_and_of_an_ordinary_account_is_not() -> None:
    get_user_model().objects.create_user("amina")
    assert list_events() == []
    call_command("createsuperuser", "--no-input", "--username", "root", "--email", "root@example.org", verbosity=0)
    root = get_user_model().objects.get(username="root")
    assert list_events() == [(f"user/{root.pk}", {"granted": ["is_staff", "is_superuser"]})]


def test_g2_change_by_a_proxy_model_is_recorded(user: Any) -> None:
    save(define_proxy(get_user_model()).objects.get(pk=user.pk), is_superuser=True)
    assert list_events() == [(f"user/{user.pk}", {"granted": ["is_superuser"]})]


def test_g2_row_that_is_given_to_another_account_is_recorded_for_both(user: Any, officers: Group) -> None:
    other = get_user_model().objects.create_user("bela")
    user.groups.add(officers)
    list_events()
    row = user.groups.through.objects.get()
    row.user = other
    row.save()
    events = list_events()
    assert len(events) == 2
    assert dict(events) == {f"user/{user.pk}": {"removed": ["officers"]}, f"user/{other.pk}": {"added": ["officers"]}}


def test_g2_row_that_is_refused_or_rolled_back_leaves_no_event(user: Any, officers: Group, settings: Any) -> None:
    rows = user.groups.through.objects
    with transaction.atomic():
        rows.create(user=user, group=officers)
        transaction.set_rollback(True)
    assert (rows.count(), list_events()) == (0, [])
    rows.create(user=user, group=officers)
    with transaction.atomic():
        rows.get().delete()
        transaction.set_rollback(True)
    assert (rows.count(), list_events()) == (1, [(f"user/{user.pk}", {"added": ["officers"]})])
    with pytest.raises(DatabaseError):
        rows.create(user=user, group=officers)
    assert list_events() == [], "the row exists"


@pytest.mark.parametrize("by_proxy", [False, True])
@pytest.mark.parametrize("by_queryset", [False, True])
def test_g2_deletion_of_an_account_withdraws_what_it_has(
    user: Any, officers: Group, by_proxy: bool, by_queryset: bool
) -> None:
    model = define_proxy(get_user_model()) if by_proxy else get_user_model()
    save(user, is_staff=True, is_superuser=True)
    user.groups.add(officers)
    user.user_permissions.add(permission(VIEW))
    list_events()
    rows = model.objects.filter(pk=user.pk)
    (rows if by_queryset else rows.get()).delete()
    lost = {"removed": ["officers"], "permissions_removed": [VIEW], "withdrawn": ["is_staff", "is_superuser"]}
    assert list_events() == [(f"user/{user.pk}", lost)]


def test_g2_deletion_is_recorded_once_if_the_memory_of_another_model_is_used_again(user: Any) -> None:
    """Django knows a sender by its address, and keeps the receivers of a class that no longer exists."""
    model = define_proxy(get_user_model())
    model._meta.object_name = "FormerProxy"
    observe_deletions(sender=model)
    save(user, is_staff=True)
    list_events()
    model.objects.get(pk=user.pk).delete()
    assert list_events() == [(f"user/{user.pk}", {"withdrawn": ["is_staff"]})]


def test_g2_deletion_of_an_account_that_is_rolled_back_or_has_no_role_leaves_no_event(user: Any) -> None:
    get_user_model().objects.create_user("bela").delete()
    save(user, is_staff=True)
    list_events()
    with transaction.atomic():
        user.delete()
        transaction.set_rollback(True)
    assert list_events() == []


def test_g2_all_members_and_all_names_of_a_large_change_are_recorded(officers: Group) -> None:
    users = get_user_model().objects.bulk_create(get_user_model()(username=f"user {n}") for n in range(70))
    officers.user_set.set(users)
    assert sorted(list_events()) == sorted((f"user/{user.pk}", {"added": ["officers"]}) for user in users)
    groups = Group.objects.bulk_create(Group(name=f"ward {n:03}") for n in range(70))
    users[0].groups.add(*groups)
    details = sorted(detail["added"] for _, detail in list_events())
    assert [len(names) for names in details] == [64, 6]
    assert [name for names in details for name in names] == [group.name for group in groups]


GRANTS = {name: change for name, (change, _) in CHANGES.items() if name != "deactivation"}


@pytest.mark.parametrize("change", GRANTS.values(), ids=GRANTS)
@pytest.mark.parametrize("in_transaction", [False, True])
def test_g2_change_is_refused_if_its_event_cannot_be_written(
    user: Any, officers: Group, change: Change, in_transaction: bool, settings: Any
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})
    if in_transaction:
        # Code that handles the error itself.
        with transaction.atomic():
            with pytest.raises(KeyMissing):
                change(user, officers)
            with pytest.raises(DatabaseError):
                user.refresh_from_db()
            transaction.set_rollback(True)
    else:
        with pytest.raises(KeyMissing):
            change(user, officers)
    stored = get_user_model().objects.get(pk=user.pk)
    assert (stored.is_active, stored.is_staff, stored.is_superuser) == (True, False, False)
    assert not stored.get_all_permissions()
    assert not stored.groups.exists()
    assert not officers.permissions.exists()
    assert not AuditOutbox.objects.exists()


WITHDRAWALS = {
    **{name: remove for name, (remove, _) in REMOVALS.items()},
    "deactivation": lambda user, group: save(user, is_active=False),
    "staff": lambda user, group: save(user, is_staff=False),
}


@pytest.mark.parametrize("withdraw", WITHDRAWALS.values(), ids=WITHDRAWALS)
def test_g2_withdrawal_does_not_depend_on_the_keys(user: Any, officers: Group, withdraw: Change, settings: Any) -> None:
    save(user, is_staff=True)
    user.groups.add(officers)
    user.user_permissions.add(permission(VIEW))
    officers.permissions.add(permission(REVEAL))
    list_events()
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"audit_mac": []})
    withdraw(user, officers)
    assert AuditOutbox.objects.exists()
    settings.PHI_OIDC = with_keys
    flush()
    events = list_events()
    assert events
    assert all(detail["signed_late"] for _, detail in events)
    assert not AuditOutbox.objects.exists()


def test_g2_planted_grant_without_a_mac_is_not_signed(user: Any, settings: Any) -> None:
    save(user, is_staff=True)
    with_keys = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(with_keys, KEYS={"audit_mac": []})
    save(user, is_staff=False)
    row = AuditOutbox.objects.get()
    planted = row.event.replace(
        '{"signed_late":true,"withdrawn":["is_staff"]}', '{"granted":["is_staff"],"signed_late":true}'
    )
    assert planted != row.event
    AuditOutbox.objects.update(event=planted)
    list_events()
    settings.PHI_OIDC = with_keys
    assert flush() == 0
    assert list_events() == []
    AuditOutbox.objects.update(event=row.event)
    assert retry_events(list_set_aside_events(), origin=Origin(), now=timezone.now()) == {}
    assert list_events() == [(f"user/{user.pk}", {"signed_late": True, "withdrawn": ["is_staff"]})]


def test_g2_creation_of_a_superuser_is_refused_if_its_event_cannot_be_written(settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_mac": []})
    get_user_model().objects.create_user("amina")
    with pytest.raises(KeyMissing):
        get_user_model().objects.create_superuser("root")
    assert [user.username for user in get_user_model().objects.all()] == ["amina"]


def test_g2_change_that_is_rolled_back_leaves_no_event(user: Any, officers: Group) -> None:
    with transaction.atomic():
        user.groups.add(officers)
        save(user, is_superuser=True)
        transaction.set_rollback(True)
    assert (list_events(), AuditOutbox.objects.count()) == ([], 0)


def test_g2_error_of_a_receiver_of_the_project_leaves_its_transaction_usable(user: Any) -> None:
    def refuse(**kwargs: Any) -> None:
        raise ValueError("not on a Sunday")

    pre_save.connect(refuse, sender=type(user))
    try:
        with transaction.atomic():
            with pytest.raises(ValueError, match="Sunday"):
                save(user, is_staff=True)
            save(Group(name="choir"))
    finally:
        pre_save.disconnect(refuse, sender=type(user))
    assert (Group.objects.count(), list_events()) == (1, [])


@pytest.mark.postgresql
def test_g2_stale_save_that_restores_a_flag_is_recorded(user: Any) -> None:
    """A save of the admin that began before the flag was withdrawn, and ends after it."""
    save(user, is_superuser=True)
    stale = get_user_model().objects.get(pk=user.pk)
    list_events()

    def save_stale() -> None:
        try:
            with transaction.atomic():
                stale.save()
        finally:
            connections.close_all()

    with transaction_beside(lambda: save(user, is_superuser=False)) as commit, ThreadPoolExecutor(1) as pool:
        saving = pool.submit(save_stale)
        time.sleep(0.5)
        assert not saving.done()
        commit()
        saving.result(timeout=20)
    assert get_user_model().objects.get(pk=user.pk).is_superuser
    assert {key for _, detail in list_events() for key in detail} == {"withdrawn", "granted"}


@pytest.mark.postgresql
@pytest.mark.parametrize("in_transaction", [False, True])
def test_g2_flag_is_read_in_the_transaction_of_the_save(user: Any, in_transaction: bool) -> None:
    """Another connection withdraws the flag after the save of a stale instance began: it waits for that save."""
    save(user, is_superuser=True)
    stale = get_user_model().objects.get(pk=user.pk)
    list_events()
    withdrawing: list[Any] = []

    def withdraw() -> None:
        try:
            save(get_user_model().objects.get(pk=user.pk), is_superuser=False)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:

        def withdraw_beside(**kwargs: Any) -> None:
            pre_save.disconnect(withdraw_beside, sender=type(user))
            withdrawing.append(pool.submit(withdraw))
            # It commits now, between the start of the save and its UPDATE, unless the row is locked.
            time.sleep(0.5)

        pre_save.connect(withdraw_beside, sender=type(user))
        with transaction.atomic() if in_transaction else nullcontext():
            stale.save()
        withdrawing[0].result(timeout=20)
    assert_events_explain(user, is_superuser=True)


@pytest.mark.parametrize("in_transaction", [False, True])
def test_g2_flag_that_is_withdrawn_by_a_receiver_and_restored_is_recorded(user: Any, in_transaction: bool) -> None:
    save(user, is_superuser=True)
    stale = get_user_model().objects.get(pk=user.pk)
    list_events()

    def withdraw(**kwargs: Any) -> None:
        pre_save.disconnect(withdraw, sender=type(user))
        save(get_user_model().objects.get(pk=user.pk), is_superuser=False)

    pre_save.connect(withdraw, sender=type(user))
    with transaction.atomic() if in_transaction else nullcontext():
        stale.save()
    assert get_user_model().objects.get(pk=user.pk).is_superuser
    assert [detail for _, detail in list_events()] == [{"withdrawn": ["is_superuser"]}, {"granted": ["is_superuser"]}]


def test_g2_flag_that_is_set_by_a_receiver_is_recorded(user: Any) -> None:
    def promote(*, instance: Any, **kwargs: Any) -> None:
        instance.is_superuser = True

    pre_save.connect(promote, sender=type(user))
    try:
        save(user, first_name="Amina")
    finally:
        pre_save.disconnect(promote, sender=type(user))
    assert list_events() == [(f"user/{user.pk}", {"granted": ["is_superuser"]})]


def assert_events_explain(user: Any, *, is_superuser: bool) -> None:
    """Assert that the events since the flag was is_superuser lead to what is stored."""
    for _, detail in list_events():
        for key in detail:
            assert is_superuser == (key == "withdrawn"), "each event changes something"
            is_superuser = not is_superuser
    assert get_user_model().objects.get(pk=user.pk).is_superuser == is_superuser


QUERIES: dict[str, tuple[Callable[[Any], None], int]] = {
    "last_login": (lambda user: save(user, ["last_login"], last_login=timezone.now()), 1),
    "password": (lambda user: save(user, ["password"], password="!"), 1),
    "all fields": (lambda user: save(user, first_name="Amina"), 2),
    "a flag": (lambda user: save(user, ["is_staff"], is_staff=False), 2),
}


@pytest.mark.parametrize(("change", "number"), QUERIES.values(), ids=QUERIES)
def test_g2_save_that_changes_no_role_costs_one_select_at_most(
    user: Any, change: Callable[[Any], None], number: int
) -> None:
    for frame in (transaction.atomic, lambda: CaptureQueriesContext(connection)):
        with frame(), CaptureQueriesContext(connection) as queries:
            change(user)
        statements = [query["sql"].split()[0] for query in queries]
        own_transaction = statements[0] == "BEGIN"
        assert own_transaction == (frame is not transaction.atomic and number > 1)
        assert statements[own_transaction : len(statements) - own_transaction] == ["SELECT", "UPDATE"][2 - number :]


def test_g2_changes_of_the_admin_have_its_user_address_and_session(
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
    user: Any,
    officers: Group,
) -> None:
    officer = sign_in(claims={"iss": op.issuer})
    get_user_model().objects.filter(pk=officer.user.pk).update(is_staff=True, is_superuser=True)
    client = officer.client()
    flags = {"is_active": "on", "is_superuser": "on", "groups": [officers.pk]}
    form = {"username": "amina", "user_permissions": [permission(REVEAL).pk], **flags}
    dates = {"date_joined_0": "2026-11-24", "date_joined_1": "12:00:00"}
    path = f"/admin/auth/user/{user.pk}/change/"
    response = client.post(path, {**form, **dates}, REMOTE_ADDR="192.0.2.7")
    assert response.status_code == 302, response.content
    assert list_events() == [
        (f"user/{user.pk}", {"granted": ["is_superuser"]}),
        (f"user/{user.pk}", {"added": ["officers"]}),
        (f"user/{user.pk}", {"permissions_added": [REVEAL]}),
    ]
    client.post(f"/admin/auth/group/{officers.pk}/delete/", {"post": "yes"}, REMOTE_ADDR="192.0.2.7")
    assert list_events() == [(f"user/{user.pk}", {"removed": ["officers"]})]
    for event in AuditEvent.objects.filter(action=Action.ROLE_CHANGED):
        assert (event.actor, event.client_ip) == (str(officer.user.pk), "192.0.2.7")
        assert event.session == str(officer.session.pk)
        assert event.request_id


def test_g2_change_after_a_request_has_no_actor(
    sign_in: Callable[..., SignedIn],
    user: Any,
) -> None:
    sign_in().client().get("/admin/")
    save(user, is_staff=True)
    event = AuditEvent.objects.get(action=Action.ROLE_CHANGED)
    assert (event.actor, event.session, event.client_ip, event.request_id) == ("", "", "", "")


def test_g2_documented_bypasses_leave_no_event(user: Any) -> None:
    """What the documentation lists as not recorded, so that the list stays true."""
    get_user_model().objects.filter(Q(pk=user.pk)).update(is_superuser=~F("is_superuser"))
    get_user_model().objects.bulk_create([get_user_model()(username="bulk", is_superuser=True)])
    rows = user.groups.through.objects
    rows.bulk_create([user.groups.through(user=user, group=Group.objects.create(name="choir"))])
    assert rows.filter(user=user).delete()[0] == 1
    fixture = serializers.serialize("json", [get_user_model()(pk=4711, username="fixture", is_superuser=True)])
    for item in serializers.deserialize("json", fixture):
        item.save()
    assert get_user_model().objects.filter(is_superuser=True).count() == 3
    assert list_events() == []

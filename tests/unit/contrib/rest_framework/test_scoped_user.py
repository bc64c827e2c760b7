"""A scoped user has only permissions that both user and token have, and is the user in all else."""

import copy
import pickle
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import get_user_model
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import Group, Permission
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_phi_oidc.contrib.rest_framework.scoped_user import ScopedUser
from tests.support.session_fixtures import BACKEND

pytestmark = pytest.mark.django_db
KNOWN = ("auth.view_user", "auth.change_user", "auth.view_group", "admin.view_logentry")


@pytest.fixture(autouse=True)
def _model_backend(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "django.contrib.auth.backends.ModelBackend"]


@pytest.fixture
def person() -> Any:
    person = get_user_model()._default_manager.create_user(username="amina", email="amina@example.org")
    permissions = Permission.objects.filter(codename__in=["view_user", "view_group"], content_type__app_label="auth")
    person.user_permissions.add(permissions.get(codename="view_user"))
    group = Group.objects.create(name="staff")
    group.permissions.add(permissions.get(codename="view_group"))
    person.groups.add(group)
    return get_user_model()._default_manager.get(pk=person.pk)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.sampled_from(KNOWN)), st.sets(st.sampled_from(KNOWN)), st.booleans())
def test_permissions_are_the_intersection_of_user_and_token(
    person: Any, token_permissions: set[str], required: set[str], is_superuser: bool
) -> None:
    # A new instance, because permissions are cached on it.
    person = get_user_model()._default_manager.get(pk=person.pk)
    person.is_superuser = is_superuser
    both = token_permissions & (set(KNOWN) if is_superuser else {"auth.view_user", "auth.view_group"})
    scoped = ScopedUser(person, token_permissions)
    assert {perm for perm in KNOWN if scoped.has_perm(perm)} == both
    assert scoped.has_perms(required) == (required <= both)
    assert scoped.has_perms(required) <= person.has_perms(required)
    assert scoped.get_all_permissions() == both
    assert scoped.get_user_permissions() | scoped.get_group_permissions() == both
    assert {app for app in ("auth", "admin") if scoped.has_module_perms(app)} == {
        perm.partition(".")[0] for perm in both
    }
    # ModelBackend denies all object permissions, except to superusers, who never reach it.
    assert scoped.has_perm("auth.view_user", person) == (is_superuser and "auth.view_user" in token_permissions)


@pytest.mark.django_db(transaction=True)
def test_async_permission_checks_are_the_same(person: Any) -> None:
    scoped = ScopedUser(person, ["auth.view_user", "auth.change_user"])

    def awaited(method: Any, *args: Any) -> Any:
        return async_to_sync(method)(*args)

    assert [awaited(scoped.ahas_perm, perm) for perm in KNOWN] == [True, False, False, False]
    assert awaited(scoped.ahas_perms, ["auth.view_user"])
    assert not awaited(scoped.ahas_perms, ["auth.view_user", "auth.view_group"])
    assert [awaited(scoped.ahas_module_perms, app) for app in ("auth", "admin")] == [True, False]
    assert awaited(scoped.aget_all_permissions) == {"auth.view_user"}
    assert awaited(scoped.aget_user_permissions) == {"auth.view_user"}
    assert awaited(scoped.aget_group_permissions) == frozenset()


def test_other_attributes_are_those_of_the_user(person: Any) -> None:
    person.is_staff = person.is_superuser = True
    scoped: Any = ScopedUser(person, [])
    assert isinstance(scoped, get_user_model())
    assert (scoped, hash(scoped), str(scoped)) == (person, hash(person), "amina")
    assert (scoped.is_authenticated, scoped.is_active) == (True, True)
    assert (scoped.is_staff, scoped.is_superuser) == (False, False)
    scoped.email = "new@example.org"
    scoped.save()
    row = get_user_model()._default_manager.get(pk=scoped.pk)
    assert (row.email, row.is_staff, row.is_superuser) == ("new@example.org", True, True)
    assert list(Group.objects.filter(user=scoped)) == list(person.groups.all())
    assert pickle.loads(pickle.dumps(scoped)) == person


def test_copy_is_limited_too(person: Any) -> None:
    person.is_superuser = True
    scoped = ScopedUser(person, ["auth.view_user"])
    for other in (copy.copy(scoped), copy.deepcopy(scoped), pickle.loads(pickle.dumps(scoped))):
        assert (other, type(other), other.is_superuser) == (person, ScopedUser, False)
        assert [perm for perm in KNOWN if other.has_perm(perm)] == ["auth.view_user"]
        other.email = "other@example.org"
    assert person.email == "amina@example.org"


def test_user_model_without_permissions_has_none() -> None:
    assert not hasattr(AbstractBaseUser, "has_perm")
    plain: Any = SimpleNamespace(is_active=True)
    assert not ScopedUser(plain, ["auth.view_user"]).has_perm("auth.view_user")

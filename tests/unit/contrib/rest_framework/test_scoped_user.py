"""As far as a token goes nobody has what they have not, and all that is not about permissions stays theirs."""

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
def test_permissions_are_those_that_both_have(person: Any, of_token: set[str], asked: set[str], root: bool) -> None:
    # Anew: permissions are cached on the instance.
    person = get_user_model()._default_manager.get(pk=person.pk)
    person.is_superuser = root
    both = of_token & (set(KNOWN) if root else {"auth.view_user", "auth.view_group"})
    narrowed = ScopedUser(person, of_token)
    assert {perm for perm in KNOWN if narrowed.has_perm(perm)} == both
    assert narrowed.has_perms(asked) == (asked <= both)
    assert narrowed.has_perms(asked) <= person.has_perms(asked)
    assert narrowed.get_all_permissions() == both
    assert narrowed.get_user_permissions() | narrowed.get_group_permissions() == both
    assert {app for app in ("auth", "admin") if narrowed.has_module_perms(app)} == {
        perm.partition(".")[0] for perm in both
    }
    # Django's own backend says no to every object, but of a superuser nobody asks it.
    assert narrowed.has_perm("auth.view_user", person) == (root and "auth.view_user" in of_token)


@pytest.mark.django_db(transaction=True)
def test_permissions_are_the_same_in_a_coroutine(person: Any) -> None:
    narrowed = ScopedUser(person, ["auth.view_user", "auth.change_user"])

    def awaited(ask: Any, *given: Any) -> Any:
        return async_to_sync(ask)(*given)

    assert [awaited(narrowed.ahas_perm, perm) for perm in KNOWN] == [True, False, False, False]
    assert awaited(narrowed.ahas_perms, ["auth.view_user"])
    assert not awaited(narrowed.ahas_perms, ["auth.view_user", "auth.view_group"])
    assert [awaited(narrowed.ahas_module_perms, app) for app in ("auth", "admin")] == [True, False]
    assert [awaited(ask) for ask in (narrowed.aget_all_permissions, narrowed.aget_user_permissions)] == [
        {"auth.view_user"},
        {"auth.view_user"},
    ]
    assert awaited(narrowed.aget_group_permissions) == frozenset()


def test_all_else_is_the_persons(person: Any) -> None:
    person.is_staff = person.is_superuser = True
    narrowed: Any = ScopedUser(person, [])
    assert isinstance(narrowed, get_user_model())
    assert (narrowed, hash(narrowed), str(narrowed)) == (person, hash(person), "amina")
    assert (narrowed.is_authenticated, narrowed.is_active) == (True, True)
    assert (narrowed.is_staff, narrowed.is_superuser) == (False, False)
    narrowed.email = "new@example.org"
    narrowed.save()
    row = get_user_model()._default_manager.get(pk=narrowed.pk)
    assert (row.email, row.is_staff, row.is_superuser) == ("new@example.org", True, True)
    assert list(Group.objects.filter(user=narrowed)) == list(person.groups.all())
    assert pickle.loads(pickle.dumps(narrowed)) == person


def test_copy_is_narrowed_too(person: Any) -> None:
    person.is_superuser = True
    narrowed = ScopedUser(person, ["auth.view_user"])
    for other in (copy.copy(narrowed), copy.deepcopy(narrowed), pickle.loads(pickle.dumps(narrowed))):
        assert (other, type(other), other.is_superuser) == (person, ScopedUser, False)
        assert [perm for perm in KNOWN if other.has_perm(perm)] == ["auth.view_user"]
        other.email = "other@example.org"
    assert person.email == "amina@example.org"


def test_user_model_without_permissions_has_none() -> None:
    assert not hasattr(AbstractBaseUser, "has_perm")
    plain: Any = SimpleNamespace(is_active=True)
    assert not ScopedUser(plain, ["auth.view_user"]).has_perm("auth.view_user")

"""Which values a new account gets, and which fields only the project can fill. The ids E036 and W036."""

import itertools
import re
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import AbstractUser, UserManager
from django.core.checks import Tags, run_checks
from django.db import models
from django.test.utils import isolate_apps

from django_phi_oidc.checks import core
from django_phi_oidc.subjects.account_fields import build_account_fields, create_username, list_missing_fields
from tests.support.manual_blocks import block

_numbers = itertools.count()
NAME, ADDRESS = r"phi_[a-z2-7]{26}", r"phi_[a-z2-7]{26}@account\.invalid"


class OwnManager(BaseUserManager[Any]):
    """Fills what it likes."""

    def create_user(self, username: str, password: str | None = None, **fields: Any) -> Any:
        return self.create(username=username, **fields)


class ClosedManager(BaseUserManager[Any]):
    """Takes no other fields, so it fills them itself."""

    def create_user(self, username: str) -> Any:
        return self.create(username=username, badge=username)


class DemandingManager(BaseUserManager[Any]):
    def create_user(self, username: str, ward: str, password: str) -> Any:
        return self.create(username=username)


@pytest.fixture(autouse=True)
def _isolated() -> Iterator[None]:
    with isolate_apps("django.contrib.auth", "django.contrib.contenttypes"):
        yield


def make_model(manager: Any = UserManager, base: Any = AbstractBaseUser, **fields: Any) -> Any:
    """Return a user model with these fields."""
    meta = type("Meta", (), {"app_label": "auth"})
    members = {"username": models.CharField(max_length=150, unique=True), "USERNAME_FIELD": "username"}
    if base is AbstractUser:
        members = {}
    return type(
        f"Person{next(_numbers)}",
        (base,),
        {**members, "objects": manager(), "Meta": meta, "__module__": __name__, **fields},
    )


def reasons(model: Any, *, has_own_username: bool = False) -> list[tuple[str, bool]]:
    missing = list_missing_fields(model, has_own_username=has_own_username)
    return [(re.findall(r"'(\w+)'", item.reason)[0], item.is_certain) for item in missing]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (models.EmailField(unique=True), ADDRESS),
        (models.EmailField(unique=True, null=True), ADDRESS),
        (models.EmailField(), None),
        (models.CharField(max_length=9, unique=True, null=True), None),
        (models.CharField(max_length=9), None),
        (models.DateField(null=True), None),
        (models.DateTimeField(auto_now=True), None),
        (models.DateTimeField(auto_now_add=True), None),
        (models.IntegerField(default=3), None),
        (models.UUIDField(default=None, null=True, unique=True), None),
    ],
)
def test_f1_field_with_a_usable_value_is_filled_or_left_out(field: Any, value: str | None) -> None:
    model = make_model(OwnManager, extra=field)
    assert reasons(model) == []
    built = build_account_fields(model, username="a name")
    assert built["username"] == "a name"
    assert built.get("extra") is None if value is None else re.fullmatch(value, built["extra"])


@pytest.mark.parametrize(
    "field",
    [
        models.CharField(max_length=9, unique=True),
        models.CharField(max_length=9, unique=True, default="x"),
        models.DateField(),
        models.IntegerField(unique=True, default=3),
        models.EmailField(unique=True, max_length=20),
        models.ForeignKey("self", on_delete=models.CASCADE),
    ],
)
@pytest.mark.parametrize(("manager", "is_certain"), [(UserManager, True), (OwnManager, False)])
def test_f1_field_that_only_the_project_can_fill_is_reported(field: Any, manager: Any, is_certain: bool) -> None:
    found = reasons(make_model(manager, extra=field.clone()))
    assert found in ([("extra", is_certain)], [("extra", True)])
    assert reasons(make_model(ClosedManager, extra=field.clone())) == []


def test_f1_parameters_of_the_manager_are_filled_or_reported() -> None:
    with_ward = make_model(DemandingManager, ward=models.CharField(max_length=9))
    assert reasons(with_ward) == []
    assert build_account_fields(with_ward, username="x") == {"username": "x", "ward": "", "password": None}
    assert reasons(make_model(DemandingManager)) == [("ward", True)]


@pytest.mark.parametrize(("length", "is_reported"), [(29, True), (30, False)])
def test_f1_user_name_must_have_room_unless_the_project_makes_it(length: int, is_reported: bool) -> None:
    model = make_model(username=models.CharField(max_length=length, unique=True))
    assert reasons(model) == ([("username", True)] if is_reported else [])
    assert reasons(model, has_own_username=True) == []


def test_f1_user_name_is_an_address_if_the_field_is_one() -> None:
    model = make_model(OwnManager, username=models.EmailField(unique=True))
    assert re.fullmatch(ADDRESS, create_username(model))
    assert re.fullmatch(NAME, create_username(make_model()))
    assert reasons(make_model(username=models.IntegerField(unique=True))) == [("username", True)]


CONSTRAINTS = {
    "of one field": [models.UniqueConstraint("email", name="of_one")],
    "of a condition on another field": [
        models.UniqueConstraint(fields=["email"], condition=models.Q(is_current=True), name="while_current")
    ],
    "of two fields": [models.UniqueConstraint(fields=["email", "ward"], name="of_two")],
}
NO_CONSTRAINTS = {
    "unless it is empty": [
        models.UniqueConstraint(fields=["email"], condition=~models.Q(email=""), name="unless_empty")
    ],
    "with a field that differs": [models.UniqueConstraint(fields=["email", "username"], name="with_name")],
    "with a field that is null": [models.UniqueConstraint(fields=["email", "badge"], name="with_null")],
    "with a field that has a new value": [models.UniqueConstraint(fields=["email", "token"], name="with_token")],
}


@pytest.mark.parametrize(
    ("constraints", "is_filled"),
    [(each, True) for each in CONSTRAINTS.values()] + [(each, False) for each in NO_CONSTRAINTS.values()],
    ids=[*CONSTRAINTS, *NO_CONSTRAINTS],
)
def test_f1_address_is_filled_if_two_accounts_cannot_share_an_empty_one(constraints: Any, is_filled: bool) -> None:
    fields = {
        "email": models.EmailField(),
        "ward": models.CharField(max_length=9),
        "badge": models.CharField(max_length=9, null=True),
        "token": models.UUIDField(default=uuid.uuid4),
        "is_current": models.BooleanField(default=True),
    }
    meta = type("Meta", (), {"app_label": "auth", "constraints": constraints})
    model = make_model(OwnManager, Meta=meta, **fields)
    assert reasons(model) == []
    assert ("email" in build_account_fields(model, username="x")) is is_filled


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"constraints": [models.UniqueConstraint(fields=["ward", "badge"], name="of_two")]}, [("ward", True)]),
        ({"unique_together": [("ward", "badge")]}, [("ward", True)]),
        (
            {
                "constraints": [
                    models.UniqueConstraint(fields=["ward"], condition=models.Q(is_active=True), name="while_active")
                ]
            },
            [("ward", False)],
        ),
        ({"constraints": [models.UniqueConstraint(fields=["ward", "key"], name="with_key")]}, []),
    ],
)
def test_f1_fields_that_are_only_unique_together_are_reported(options: Any, found: list[Any]) -> None:
    fields = {
        "ward": models.CharField(max_length=9, blank=True),
        "badge": models.CharField(max_length=9, default="none"),
        "key": models.UUIDField(null=True),
        "is_active": models.BooleanField(default=True),
    }
    meta = type("Meta", (), {"app_label": "auth", **options})
    assert reasons(make_model(Meta=meta, **fields)) == found


def test_f1_address_may_be_a_text_field_that_the_model_names() -> None:
    field = models.CharField(max_length=100, unique=True)
    model = make_model(OwnManager, mail=field, EMAIL_FIELD="mail")
    assert reasons(model) == []
    assert re.fullmatch(ADDRESS, build_account_fields(model, username="x")["mail"])
    assert reasons(make_model(OwnManager, mail=field.clone())) == [("mail", False)], "without EMAIL_FIELD"


def test_f1_manager_without_create_user_is_reported() -> None:
    (missing,) = list_missing_fields(make_model(models.Manager), has_own_username=False)
    assert "create_user" in missing.reason


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("manager", "provisioning", "expected"),
    [
        (UserManager, "create", {"django_phi_oidc.E036"}),
        (OwnManager, "create", {"django_phi_oidc.W036"}),
        (UserManager, "existing", set()),
        (ClosedManager, "create", set()),
    ],
)
def test_f1_check_reports_the_field(
    manager: Any, provisioning: str, expected: set[str], settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": provisioning}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    model = make_model(manager, extra=models.CharField(max_length=9, unique=True))
    monkeypatch.setattr(core, "get_user_model", lambda: model)
    found = {message.id for message in run_checks(tags=[Tags.security]) if str(message.id).endswith("036")}
    assert found == expected


class UnsavedManager(BaseUserManager[Any]):
    def create_user(self, **fields: Any) -> Any:
        return self.model(**fields)


def test_documented_hook_sets_the_field_of_the_project() -> None:
    names = {"issue_badge": lambda: "B-7"}
    exec(block("custom-user-models", "hook"), names)
    backend: Any = names["BadgeBackend"]()
    backend.UserModel = make_model(UnsavedManager, badge=models.CharField(max_length=20, unique=True))
    account = backend.create_user({})
    assert account.badge == "B-7"
    assert re.fullmatch(NAME, account.username)

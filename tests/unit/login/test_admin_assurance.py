"""ADMIN_ASSURANCE: pages of the admin need a strong and recent sign-in; changes of privileges a more recent one."""

from collections.abc import Callable
from datetime import timedelta
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.contrib import admin
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.urls import include, path

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import ASSURANCE_KEY, build_assurance_entry
from django_phi_oidc.login.admin_site import use_oidc_login
from tests.support.audit_outage import audit_database_fails
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import SecureClient, SignedIn

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.urls"),
]
STRONG, WEAK = "urn:example:loa:3", "urn:example:loa:1"
HTML = {"Accept": "text/html"}
MINUTE = timedelta(minutes=1)
Officer = Callable[..., Any]


@pytest.fixture
def officer(sign_in: Callable[..., SignedIn]) -> Officer:
    """Return a function that signs a member of staff in, with that acr and age of the authentication."""

    def create(*permissions: str, acr: str = STRONG, age: timedelta | None = MINUTE) -> SecureClient:
        signed_in = sign_in()
        users = get_user_model()._default_manager.filter(pk=signed_in.user.pk)
        users.update(is_staff=True, is_superuser=not permissions)
        signed_in.user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = signed_in.client()
        session = client.session
        auth_time = None if age is None else clock.now() - age
        session[ASSURANCE_KEY] = build_assurance_entry(acr=acr, auth_time=auth_time)
        session.save()
        return client

    return create


def require(settings: Any, **declared: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ADMIN_ASSURANCE=declared)


def get_outcome(client: Any, path: str, method: str = "get", **data: Any) -> str:
    """Return "step-up" if the page is refused for that, and otherwise the status."""
    response = getattr(client, method)(path, data, headers=HTML)
    is_step_up = urlsplit(response.headers.get("Location", "")).path == "/oidc/step-up/"
    return "step-up" if is_step_up or b"/oidc/step-up/" in response.content else str(response.status_code)


def list_refusals() -> list[str]:
    return list(AuditEvent.objects.filter(action="access.denied").order_by("id").values_list("reason", flat=True))


def test_g14_nothing_is_required_by_default(officer: Officer) -> None:
    client = officer(acr="", age=None)
    assert [get_outcome(client, path) for path in ("/admin/", "/admin/auth/user/add/")] == ["200", "200"]


@pytest.mark.parametrize("path", ["/admin/", "/admin/auth/", "/admin/auth/user/", "/admin/phi_oidc_audit/auditevent/"])
def test_g14_page_of_the_admin_needs_the_acr(officer: Officer, settings: Any, path: str) -> None:
    require(settings, acr=[STRONG])
    assert get_outcome(officer(acr=WEAK), path) == "step-up"
    assert list_refusals() == ["acr_insufficient"]
    assert get_outcome(officer(acr=STRONG), path) == "200"
    assert list_refusals() == ["acr_insufficient"]


@pytest.mark.parametrize(
    "page", ["/admin/", "/admin/django_phi_oidc/oidcsession/", "/admin/phi_oidc_audit/auditevent/"]
)
def test_g14_refusal_is_recorded_once_if_no_step_up_is_possible(officer: Officer, settings: Any, page: str) -> None:
    require(settings, acr=[STRONG])
    urls = ModuleType("urls")
    urls.urlpatterns = [path("admin/", admin.site.urls)]  # type: ignore[attr-defined]  # without the app's own URLs
    settings.ROOT_URLCONF = urls
    response = officer(acr=WEAK).get(page, headers=HTML)
    (event,) = AuditEvent.objects.filter(action="access.denied")
    assert (response.status_code, event.reason) == (403, "acr_insufficient")
    assert str(event.pk) in response.content.decode()


def test_g14_page_of_the_admin_needs_a_recent_authentication(officer: Officer, settings: Any) -> None:
    require(settings, max_age=10 * MINUTE)
    ages = (9 * MINUTE, 11 * MINUTE, None)
    assert [get_outcome(officer(age=age), "/admin/") for age in ages] == ["200", "step-up", "step-up"]
    assert list_refusals() == ["auth_time_stale", "auth_time_missing"]


def test_g14_session_without_a_provider_is_sent_to_the_provider(settings: Any, client: Any) -> None:
    user = get_user_model()._default_manager.create_superuser("by-password")
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, "django.contrib.auth.backends.ModelBackend"]
    assert client.get("/admin/", secure=True, headers=HTML).status_code == 200
    require(settings, acr=[STRONG])
    response = client.get("/admin/", secure=True, headers=HTML)
    assert (response.status_code, urlsplit(response["Location"]).path) == (302, "/oidc/authenticate/")


def test_g14_refused_user_can_sign_out(officer: Officer, settings: Any) -> None:
    require(settings, acr=[STRONG])
    client = officer(acr=WEAK)
    assert client.post("/admin/logout/", headers=HTML).status_code == 302
    assert list_refusals() == []


def test_g14_form_is_refused_and_changes_nothing(officer: Officer, settings: Any) -> None:
    require(settings, acr=[STRONG])
    assert get_outcome(officer(acr=WEAK), "/admin/auth/group/add/", "post", name="choir") == "step-up"
    assert not Group.objects.exists()
    assert get_outcome(officer(acr=STRONG), "/admin/auth/group/add/", "post", name="choir") == "302"
    assert Group.objects.exists()


PRIVILEGE_PAGES = ("user/add/", "user/{user}/change/", "user/{user}/password/", "user/{user}/delete/", "group/add/")
OTHER_PAGES = ("", "user/", "group/", "user/{user}/history/")


def test_g2_changes_of_privileges_need_a_more_recent_authentication(officer: Officer, settings: Any) -> None:
    require(settings, acr=[STRONG], max_age=60 * MINUTE, privilege_max_age=5 * MINUTE)
    pk = get_user_model()._default_manager.create_user("amina").pk
    recent, older = officer(age=4 * MINUTE), officer(age=6 * MINUTE)
    for page in PRIVILEGE_PAGES + OTHER_PAGES:
        path = f"/admin/auth/{page.format(user=pk)}"
        assert get_outcome(recent, path) == "200", page
        assert get_outcome(older, path) == ("step-up" if page in PRIVILEGE_PAGES else "200"), page
    action = {"action": "delete_selected", "_selected_action": [pk], "post": "yes"}
    assert get_outcome(older, "/admin/auth/user/", "post", **action) == "step-up"
    assert get_user_model()._default_manager.filter(pk=pk).exists()
    assert get_outcome(recent, "/admin/auth/user/", "post", **action) == "302"
    assert not get_user_model()._default_manager.filter(pk=pk).exists()


def test_g2_user_who_may_only_look_needs_no_more_recent_authentication(officer: Officer, settings: Any) -> None:
    require(settings, privilege_max_age=5 * MINUTE)
    path = f"/admin/auth/user/{get_user_model()._default_manager.create_user('amina').pk}/change/"
    assert get_outcome(officer("view_user", age=6 * MINUTE), path) == "200"
    assert get_outcome(officer("view_user", "change_user", age=6 * MINUTE), path) == "step-up"


class Permissions(admin.TabularInline):  # type: ignore[type-arg]  # Django's class takes no argument at run time
    model = Permission


class PageWithInline(admin.ModelAdmin):  # type: ignore[type-arg]
    inlines = (Permissions,)


class PageWithInlineOfRow(admin.ModelAdmin):  # type: ignore[type-arg]
    def get_inlines(self, request: Any, obj: Any) -> Any:
        return [] if obj is None else [Permissions]


@pytest.fixture
def register(settings: Any) -> Callable[..., str]:
    """Return a function that registers a model with a site of its own and returns the path of its pages."""

    def create(model: Any, admin_class: Any = None) -> str:
        site = admin.AdminSite()
        use_oidc_login(site)
        site.register(model, admin_class)
        urls = ModuleType("urls")
        urls.urlpatterns = [path("oidc/", include("django_phi_oidc.urls")), path("admin/", site.urls)]  # type: ignore[attr-defined]
        settings.ROOT_URLCONF = urls
        return f"/admin/{model._meta.app_label}/{model._meta.model_name}"

    return create


@pytest.mark.parametrize(
    ("admin_class", "add", "change"),
    [(PageWithInline, "step-up", "step-up"), (PageWithInlineOfRow, "200", "step-up"), (None, "200", "200")],
)
def test_g2_page_with_an_inline_of_privileges_needs_the_more_recent_authentication(
    officer: Officer, settings: Any, register: Callable[..., str], admin_class: Any, add: str, change: str
) -> None:
    require(settings, privilege_max_age=5 * MINUTE)
    pages = register(ContentType, admin_class)
    row = ContentType.objects.get_for_model(Group)
    recent, older = officer(age=4 * MINUTE), officer(age=6 * MINUTE)
    for page, expected in {
        f"{pages}/": "200",
        f"{pages}/add/": add,
        f"{pages}/{row.pk}/change/": change,
        f"{pages}/{row.pk}/history/": "200",
    }.items():
        assert get_outcome(older, page) == expected, page
        assert get_outcome(recent, page) == "200", page
    if admin_class:
        page = f"{pages}/{row.model}/change/?_to_field=model"
        assert get_outcome(older, page) == "step-up", "the object is found by another field"


@pytest.mark.parametrize("relation", ["groups", "user_permissions"])
def test_g2_page_of_a_table_of_roles_needs_the_more_recent_authentication(
    officer: Officer, settings: Any, register: Callable[..., str], relation: str
) -> None:
    require(settings, privilege_max_age=5 * MINUTE)
    pages = register(getattr(get_user_model(), relation).through)
    for page, expected in {f"{pages}/": "200", f"{pages}/add/": "step-up"}.items():
        assert get_outcome(officer(age=6 * MINUTE), page) == expected
        assert get_outcome(officer(age=4 * MINUTE), page) == "200"


def test_g14_local_account_reaches_the_admin(settings: Any, client: Any) -> None:
    backend = "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend"
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, backend]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, BREAK_GLASS_ACCOUNTS=["night-desk"])
    require(settings, acr=[STRONG], max_age=5 * MINUTE, privilege_max_age=5 * MINUTE)
    get_user_model()._default_manager.create_superuser("night-desk", password="correct horse battery staple")
    secret = {"username": "night-desk", "password": "correct horse battery staple"}
    client.post("/oidc/local-login/", secret, secure=True)
    assert client.get("/admin/auth/user/add/", secure=True, headers=HTML).status_code == 200
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, BREAK_GLASS_ACCOUNTS=[])
    assert client.get("/admin/auth/user/add/", secure=True, headers=HTML).status_code == 302


def test_g14_refusal_that_cannot_be_recorded_is_no_page(officer: Officer, settings: Any) -> None:
    require(settings, acr=[STRONG])
    client = officer(acr=WEAK)
    with audit_database_fails():
        assert get_outcome(client, "/admin/") == "503"
    assert list_refusals() == []

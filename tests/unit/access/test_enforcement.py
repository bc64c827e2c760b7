"""Guarded views over requests: access, events, and response headers."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.core.cache import cache
from django.db import OperationalError, connections
from django.test import AsyncClient, Client
from django.test.utils import CaptureQueriesContext
from django.views.generic import TemplateView, View

from django_phi_oidc.access.mixins import PHIAccessMixin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import SESSION_KEY
from django_phi_oidc.decorators import phi_access
from django_phi_oidc.errors import DeclarationInvalid
from tests.support import guarded_views as wards
from tests.support.guarded_views import ASKED, HELD, PERMISSION, RAN
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import BACKEND, SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.guarded_views"),
]
HTML = {"Accept": "text/html"}
VIEW_NAMES = ("chart", "achart", "class", "aclass")


@pytest.fixture(autouse=True)
def _wards(settings: Any) -> Iterator[None]:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    cache.clear()
    for collection in (HELD, ASKED, RAN):
        collection.clear()
    yield
    HELD.clear()


@pytest.fixture
def scene(sign_in: Callable[[], SignedIn]) -> SimpleNamespace:
    """Return a clinician with the permission on one of two patients."""
    users = get_user_model()._default_manager
    clinician = sign_in()
    patient, other = (users.create_user(username=name) for name in ("patient", "other"))
    HELD.add((clinician.user.pk, patient.pk))
    return SimpleNamespace(clinician=clinician, client=clinician.client(), patient=patient.pk, other=other.pk)


def list_access_events() -> list[tuple[str, str, str, str, str]]:
    events = AuditEvent.objects.filter(action__startswith="access.").order_by("id")
    return [(event.action, event.outcome, event.reason, event.purpose, event.resource) for event in events]


def audit_log_unavailable() -> Any:
    def fail(*args: Any) -> Any:
        raise OperationalError("the server is unavailable")

    return connections["phi_audit"].execute_wrapper(fail)


@async_to_sync
async def aget(path: str, person: SignedIn, **extra: Any) -> Any:
    client = AsyncClient()
    client.cookies[django_settings.SESSION_COOKIE_NAME] = person.django_key
    return await client.get(path, secure=True, **extra)


SESSIONS = ("provider", "password", "anonymous")
PERMISSIONS = ("the patient", "another patient", "no object", "nothing")
PURPOSES = {
    "TREAT": "",
    "ETREAT": "",
    "HMARKT": "purpose_not_declared",
    "treat": "purpose_unknown",
    "": "purpose_unknown",
}


@pytest.mark.parametrize(
    ("session", "permission", "audit_log"), list(product(SESSIONS, PERMISSIONS, ("available", "unavailable")))
)
def test_access_for_each_combination_records_one_event(
    session: str, permission: str, audit_log: str, scene: SimpleNamespace
) -> None:
    user = scene.clinician.user
    held = {"the patient": scene.patient, "another patient": scene.other, "no object": None}
    HELD.clear()
    HELD.update({(user.pk, held[permission])} if permission in held else ())
    client = scene.client if session == "provider" else SecureClient()
    if session == "password":
        client.force_login(user, backend="tests.support.guarded_views.Wards")
    for name, (purpose, wrong) in product(VIEW_NAMES[::2], PURPOSES.items()):
        RAN.clear()
        before = list_access_events()
        with audit_log_unavailable() if audit_log == "unavailable" else nullcontext():
            response = client.get(f"/{name}/{scene.patient}/", {"purpose": purpose})
        reason = "session_missing" if session != "provider" else "permission_missing"
        if session == "provider" and permission == "the patient":
            reason = wrong
        written = purpose if wrong != "purpose_unknown" else ""
        action, outcome = ("access.denied", "failure") if reason else ("access.granted", "success")
        event = (action, outcome, reason, written, f"Patient/{scene.patient}")
        if session == "anonymous":
            expected: tuple[int, list[Any]] = (401, [])
        elif audit_log == "unavailable":
            expected = (503, [])
        else:
            expected = ({"session_missing": 401, "": 200}.get(reason, 403), [event])
        assert (response.status_code, list_access_events()[len(before) :]) == expected
        assert ([name] if expected[0] == 200 else []) == RAN
        assert response["Cache-Control"] == "no-store"
        assert ("the chart" in response.content.decode()) == (expected[0] == 200)


@pytest.mark.parametrize("name", VIEW_NAMES)
def test_async_requests_are_guarded_like_sync_ones(name: str, scene: SimpleNamespace) -> None:
    shown = aget(f"/{name}/{scene.patient}/?purpose=TREAT", scene.clinician)
    refused = aget(f"/{name}/{scene.other}/?purpose=TREAT", scene.clinician)
    with audit_log_unavailable():
        unavailable = aget(f"/{name}/{scene.patient}/?purpose=TREAT", scene.clinician)
    assert [response.status_code for response in (shown, refused, unavailable)] == [200, 403, 503]
    assert {response["Cache-Control"] for response in (shown, refused, unavailable)} == {"no-store"}
    assert (RAN, [event[2] for event in list_access_events()]) == ([name], ["", "permission_missing"])


@pytest.mark.parametrize("name", VIEW_NAMES)
def test_sync_requests_are_guarded_for_each_kind_of_view(name: str, scene: SimpleNamespace) -> None:
    assert scene.client.get(f"/{name}/{scene.patient}/?purpose=TREAT").content == b"the chart"
    assert scene.client.get(f"/{name}/{scene.other}/?purpose=TREAT").status_code == 403


def test_granted_access_adds_one_insert_and_no_other_query(scene: SimpleNamespace) -> None:
    counts = {}
    assert scene.client.get(f"/chart/{scene.patient}/?purpose=TREAT").status_code == 200, "it stores the name"
    for name in ("unguarded", "chart"):
        with (
            CaptureQueriesContext(connections["default"]) as default_queries,
            CaptureQueriesContext(connections["phi_audit"]) as audit_queries,
        ):
            assert scene.client.get(f"/{name}/{scene.patient}/?purpose=TREAT").status_code == 200
        inserts = [query["sql"] for query in audit_queries.captured_queries if query["sql"].startswith("INSERT")]
        counts[name] = (len(default_queries), len(inserts), len(audit_queries) - len(inserts))
    assert counts["chart"][0] == counts["unguarded"][0]
    assert [counts[name][1] for name in counts] == [0, 1]
    assert [scene.patient] * 2 == ASKED


def test_permission_without_object_is_checked_without_object(scene: SimpleNamespace) -> None:
    path = f"/without_object/{scene.patient}/?purpose=TREAT"
    assert scene.client.get(path).status_code == 403
    HELD.add((scene.clinician.user.pk, None))
    assert scene.client.get(path).status_code == 200
    assert ASKED == [None, None]


def test_fixed_purpose_ignores_the_request(scene: SimpleNamespace) -> None:
    assert scene.client.get(f"/fixed/{scene.patient}/?purpose=HMARKT").status_code == 200
    assert list_access_events()[0][3] == "TREAT"


@pytest.mark.parametrize("name", ["missing", "not_found", "chart"])
def test_missing_object_is_refused_like_a_forbidden_one(name: str, scene: SimpleNamespace) -> None:
    """The permission is not checked without an object, which a backend may grant."""
    HELD.add((scene.clinician.user.pk, None))
    missing = scene.client.get(f"/{name}/999999/?purpose=TREAT")
    forbidden = scene.client.get(f"/chart/{scene.other}/?purpose=TREAT")
    assert (missing.status_code, missing.content) == (403, forbidden.content)
    assert [event[2] for event in list_access_events()] == ["permission_missing"] * 2
    assert [scene.other] == ASKED


@pytest.mark.parametrize(
    "resource",
    ["Anna Svensson", "Patient/Anna Svensson", "Patient/a@b", "Patient/", "/7", "7", "", "Patient/ü", "P/7\n"],
)
def test_invalid_resource_is_refused_and_not_recorded(resource: str, scene: SimpleNamespace) -> None:
    assert (
        scene.client.get(
            f"/resource_from_query/{scene.patient}/", {"purpose": "TREAT", "resource": resource}
        ).status_code
        == 403
    )
    assert list_access_events() == [("access.denied", "failure", "resource_invalid", "TREAT", "")]
    assert ASKED == []
    good = {"purpose": "TREAT", "resource": "Patient/4711-a.b"}
    assert scene.client.get(f"/resource_from_query/{scene.patient}/", good).status_code == 200


def test_resource_is_keyed_if_the_settings_require_it(scene: SimpleNamespace, settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, AUDIT={"resource_ids": "keyed"})
    assert scene.client.get(f"/chart/{scene.patient}/?purpose=TREAT").status_code == 200
    kind, _, written = list_access_events()[0][4].partition("/")
    assert (kind, len(written)) == ("Patient", 32)


def test_event_contains_actor_and_origin(scene: SimpleNamespace) -> None:
    scene.client.get(f"/chart/{scene.patient}/?purpose=TREAT")
    (event,) = AuditEvent.objects.filter(action="access.granted")
    assert (event.actor, event.session) == (str(scene.clinician.user.pk), str(scene.clinician.session.pk))
    assert (event.client_ip, bool(event.request_id), event.detail) == ("127.0.0.1", True, "{}")


def test_anonymous_navigation_redirects_to_the_sign_in_and_back(scene: SimpleNamespace) -> None:
    response = Client().get(f"/chart/{scene.patient}/?purpose=TREAT", headers=HTML, secure=True)
    assert response.status_code == 302
    assert response["Location"] == f"/oidc/authenticate/?next=/chart/{scene.patient}/%3Fpurpose%3DTREAT"
    assert (response["Cache-Control"], list_access_events(), RAN) == ("no-store", [], [])


def test_refused_navigation_shows_the_hosts_page_without_a_reason(scene: SimpleNamespace) -> None:
    response = scene.client.get(f"/chart/{scene.other}/?purpose=TREAT", headers=HTML)
    assert (response.status_code, response["Cache-Control"]) == (403, "no-store")
    assert response["Content-Type"].startswith("text/html")
    assert "permission" not in response.content.decode().lower()
    problem = scene.client.get(f"/chart/{scene.other}/?purpose=TREAT").json()
    assert problem == {"title": "Access is denied.", "status": 403, "code": "access_denied"}
    assert len(list_access_events()) == 2


def test_unavailable_audit_log_gives_the_503_page(scene: SimpleNamespace) -> None:
    with audit_log_unavailable():
        response = scene.client.get(f"/chart/{scene.patient}/?purpose=TREAT", headers=HTML)
    assert (response.status_code, response["Cache-Control"]) == (503, "no-store")
    assert "the record cannot be written" in response.content.decode()
    assert RAN == []
    assert scene.client.get(f"/chart/{scene.patient}/?purpose=TREAT", headers=HTML).status_code == 200


@pytest.mark.parametrize("name", ["cached_inside", "cached_outside"])
def test_guarded_page_is_never_cached_by_django(name: str, scene: SimpleNamespace) -> None:
    for _ in range(2):
        response = scene.client.get(f"/{name}/{scene.patient}/?purpose=TREAT")
        assert (response.status_code, response["Cache-Control"]) == (200, "no-store")
    assert [name, name] == RAN
    assert len(list_access_events()) == 2


@pytest.mark.parametrize("name", ["template", "stream"])
def test_each_kind_of_response_is_not_stored(name: str, scene: SimpleNamespace) -> None:
    response = scene.client.get(f"/{name}/{scene.patient}/?purpose=TREAT")
    assert (b"".join(response), response["Cache-Control"]) == (b"the chart", "no-store")
    assert scene.client.get(f"/unguarded/{scene.patient}/")["Cache-Control"] == "public, max-age=600"


@pytest.mark.parametrize("view", [wards.chart, wards.Chart.as_view()], ids=["function", "class"])
def test_response_is_not_stored_even_without_the_middleware(view: Any, scene: SimpleNamespace, rf: Any) -> None:
    request = rf.get("/", {"purpose": "TREAT"})
    request.user, request.session = scene.clinician.user, {SESSION_KEY: str(scene.clinician.session.pk)}
    response = view(request, pk=scene.patient)
    assert (response.content, response["Cache-Control"]) == (b"the chart", "no-store")


VALID_ARGUMENTS: dict[str, Any] = {"purpose": "TREAT", "resource": wards.resource, "permission": PERMISSION}


async def coroutine_function(request: Any, pk: int) -> Any:
    return None


INVALID_ARGUMENTS = {
    "no purpose": {"purpose": ""},
    "an unknown purpose": {"purpose": "treatment"},
    "a purpose and purposes": {"purposes": ["TREAT"]},
    "a stated purpose without purposes": {"purpose": wards.get_stated_purpose},
    "unknown purposes": {"purpose": wards.get_stated_purpose, "purposes": ["TREAT", "fun"]},
    "purposes as a string": {"purpose": wards.get_stated_purpose, "purposes": "TREAT"},
    "no permission": {"permission": ""},
    "a blank permission": {"permission": " "},
    "no resource": {"resource": None},
    "a resource that is not callable": {"resource": "Patient/7"},
    "a coroutine for the resource": {"resource": coroutine_function},
    "a coroutine for the purpose": {"purpose": coroutine_function, "purposes": ["TREAT"]},
    "an object that is not callable": {"obj": "patient"},
    "a coroutine for the object": {"obj": coroutine_function},
}


@pytest.mark.parametrize("changed", INVALID_ARGUMENTS.values(), ids=INVALID_ARGUMENTS)
def test_invalid_argument_is_refused_at_decoration(changed: dict[str, Any]) -> None:
    phi_access(**VALID_ARGUMENTS)
    with pytest.raises(DeclarationInvalid):
        phi_access(**{**VALID_ARGUMENTS, **changed})


@pytest.mark.parametrize("missing", [{"resource"}, {"permission"}, {"purpose"}], ids=str)
def test_missing_argument_is_refused(missing: set[str]) -> None:
    with pytest.raises(TypeError):
        phi_access(**{name: value for name, value in VALID_ARGUMENTS.items() if name not in missing})


INVALID_CLASSES: dict[str, dict[str, Any]] = {
    "no permission": {"permission": ""},
    "no purposes": {"purposes": ()},
    "both a stated and a fixed purpose": {"purposes": (), "purpose": "TREAT"},
    "a fixed purpose and purposes": {"get_purpose": PHIAccessMixin.get_purpose, "purpose": "TREAT"},
    "unknown purposes": {"purposes": ["fun"]},
    "no resource": {"get_resource": PHIAccessMixin.get_resource},
}


@pytest.mark.parametrize("changed", INVALID_CLASSES.values(), ids=INVALID_CLASSES)
def test_invalid_class_is_refused_by_as_view(changed: dict[str, Any]) -> None:
    wards.Chart.as_view()
    with pytest.raises(DeclarationInvalid):
        type("Wrong", (wards.Chart,), changed).as_view()  # type: ignore[attr-defined]


def test_class_is_guarded_for_any_order_of_the_bases(rf: Any) -> None:
    class Last(TemplateView, PHIAccessMixin):
        template_name = "missing.html"
        permission, purpose = PERMISSION, "TREAT"

        def get_resource(self) -> str:
            raise AssertionError

    request = rf.get("/", secure=True)
    request.user, request.session = AnonymousUser(), {}
    assert Last.as_view()(request, pk=7).status_code == 401


def test_guard_on_a_method_raises_type_error(rf: Any) -> None:
    class Wrong(View):
        @wards.guard()
        def get(self, request: Any, pk: int) -> Any:
            raise AssertionError

    with pytest.raises(TypeError, match="PHIAccessMixin"):
        Wrong.as_view()(rf.get("/"), pk=7)


def test_guarded_view_keeps_its_metadata() -> None:
    def view(request: Any) -> Any:
        """Describe the view."""

    view.login_required = False  # type: ignore[attr-defined]
    guarded: Any = phi_access(**VALID_ARGUMENTS)(view)
    assert (guarded.__name__, guarded.__doc__, guarded.login_required) == ("view", "Describe the view.", False)

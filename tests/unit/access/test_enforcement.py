"""A guarded view, over requests: who is let in, what the trail has of it, and what becomes of the response."""

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
from tests.support.session_fixtures import BACKEND, SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.guarded_views"),
]
PAGE = {"Accept": "text/html"}
ALL = ("chart", "achart", "class", "aclass")


@pytest.fixture(autouse=True)
def _wards(settings: Any) -> Iterator[None]:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    cache.clear()
    for noted in (HELD, ASKED, RAN):
        noted.clear()
    yield
    HELD.clear()


@pytest.fixture
def scene(sign_in: Callable[[], SignedIn]) -> SimpleNamespace:  # noqa: F811 -- the fixture
    """Return a clinician who holds the permission on one of two patients."""
    users = get_user_model()._default_manager
    clinician = sign_in()
    patient, other = (users.create_user(username=name) for name in ("patient", "other"))
    HELD.add((clinician.user.pk, patient.pk))
    return SimpleNamespace(clinician=clinician, client=clinician.client(), patient=patient.pk, other=other.pk)


def told() -> list[tuple[str, str, str, str, str]]:
    events = AuditEvent.objects.filter(action__startswith="access.").order_by("id")
    return [(each.action, each.outcome, each.reason, each.purpose, each.resource) for each in events]


def trail_away() -> Any:
    def fail(*args: Any) -> Any:
        raise OperationalError("the server is away")

    return connections["phi_audit"].execute_wrapper(fail)


@async_to_sync
async def aget(path: str, person: SignedIn, **extra: Any) -> Any:
    client = AsyncClient()
    client.cookies[django_settings.SESSION_COOKIE_NAME] = person.django_key
    return await client.get(path, secure=True, **extra)


SESSIONS = ("provider", "password", "nobody")
PERMISSIONS = ("the patient", "another patient", "no object", "nothing")
PURPOSES = {
    "TREAT": "",
    "ETREAT": "",
    "HMARKT": "purpose_not_declared",
    "treat": "purpose_unknown",
    "": "purpose_unknown",
}


@pytest.mark.parametrize(("session", "permission", "trail"), list(product(SESSIONS, PERMISSIONS, ("there", "away"))))
def test_matrix_lets_in_or_not_with_one_event_each(
    session: str, permission: str, trail: str, scene: SimpleNamespace
) -> None:
    user = scene.clinician.user
    held = {"the patient": scene.patient, "another patient": scene.other, "no object": None}
    HELD.clear()
    HELD.update({(user.pk, held[permission])} if permission in held else ())
    client = scene.client if session == "provider" else SecureClient()
    if session == "password":
        client.force_login(user, backend="tests.support.guarded_views.Wards")
    for name, (purpose, wrong) in product(ALL[::2], PURPOSES.items()):
        RAN.clear()
        before = told()
        with trail_away() if trail == "away" else nullcontext():
            response = client.get(f"/{name}/{scene.patient}/", {"purpose": purpose})
        reason = "session_missing" if session != "provider" else "permission_missing"
        if session == "provider" and permission == "the patient":
            reason = wrong
        written = purpose if wrong != "purpose_unknown" else ""
        action, outcome = ("access.denied", "failure") if reason else ("access.granted", "success")
        event = (action, outcome, reason, written, f"Patient/{scene.patient}")
        if session == "nobody":
            expected: tuple[int, list[Any]] = (401, [])
        elif trail == "away":
            expected = (503, [])
        else:
            expected = ({"session_missing": 401, "": 200}.get(reason, 403), [event])
        assert (response.status_code, told()[len(before) :]) == expected
        assert ([name] if expected[0] == 200 else []) == RAN
        assert response["Cache-Control"] == "no-store"
        assert ("the chart" in response.content.decode()) == (expected[0] == 200)


@pytest.mark.parametrize("name", ALL)
def test_async_request_is_judged_as_a_sync_one_is(name: str, scene: SimpleNamespace) -> None:
    shown = aget(f"/{name}/{scene.patient}/?purpose=TREAT", scene.clinician)
    refused = aget(f"/{name}/{scene.other}/?purpose=TREAT", scene.clinician)
    with trail_away():
        unavailable = aget(f"/{name}/{scene.patient}/?purpose=TREAT", scene.clinician)
    assert [each.status_code for each in (shown, refused, unavailable)] == [200, 403, 503]
    assert {each["Cache-Control"] for each in (shown, refused, unavailable)} == {"no-store"}
    assert (RAN, [event[2] for event in told()]) == ([name], ["", "permission_missing"])


@pytest.mark.parametrize("name", ALL)
def test_sync_request_reaches_every_kind_of_view(name: str, scene: SimpleNamespace) -> None:
    assert scene.client.get(f"/{name}/{scene.patient}/?purpose=TREAT").content == b"the chart"
    assert scene.client.get(f"/{name}/{scene.other}/?purpose=TREAT").status_code == 403


def test_permitted_look_is_one_insert_and_nothing_else_of_ours(scene: SimpleNamespace) -> None:
    counts = {}
    for name in ("unguarded", "chart"):
        with (
            CaptureQueriesContext(connections["default"]) as own,
            CaptureQueriesContext(connections["phi_audit"]) as trail,
        ):
            assert scene.client.get(f"/{name}/{scene.patient}/?purpose=TREAT").status_code == 200
        inserts = [query["sql"] for query in trail.captured_queries if query["sql"].startswith("INSERT")]
        counts[name] = (len(own), len(inserts), len(trail) - len(inserts))
    assert counts["chart"][0] == counts["unguarded"][0]
    assert [counts[name][1] for name in counts] == [0, 1]
    assert [scene.patient] == ASKED


def test_permission_of_no_object_is_asked_for_none(scene: SimpleNamespace) -> None:
    path = f"/whole/{scene.patient}/?purpose=TREAT"
    assert scene.client.get(path).status_code == 403
    HELD.add((scene.clinician.user.pk, None))
    assert scene.client.get(path).status_code == 200
    assert ASKED == [None, None]


def test_fixed_purpose_is_the_views_own(scene: SimpleNamespace) -> None:
    assert scene.client.get(f"/fixed/{scene.patient}/?purpose=HMARKT").status_code == 200
    assert told()[0][3] == "TREAT"


@pytest.mark.parametrize("name", ["nobody", "gone", "chart"])
def test_object_that_is_not_there_is_refused_as_one_that_is_not_permitted(name: str, scene: SimpleNamespace) -> None:
    """And not asked for no object, which a backend may well permit."""
    HELD.add((scene.clinician.user.pk, None))
    missing = scene.client.get(f"/{name}/999999/?purpose=TREAT")
    forbidden = scene.client.get(f"/chart/{scene.other}/?purpose=TREAT")
    assert (missing.status_code, missing.content) == (403, forbidden.content)
    assert [event[2] for event in told()] == ["permission_missing"] * 2
    assert [scene.other] == ASKED


@pytest.mark.parametrize(
    "resource",
    ["Anna Svensson", "Patient/Anna Svensson", "Patient/a@b", "Patient/", "/7", "7", "", "Patient/ü", "P/7\n"],
)
def test_resource_that_is_no_type_and_key_is_refused_and_not_written_down(
    resource: str, scene: SimpleNamespace
) -> None:
    assert scene.client.get(f"/named/{scene.patient}/", {"purpose": "TREAT", "resource": resource}).status_code == 403
    assert told() == [("access.denied", "failure", "resource_invalid", "TREAT", "")]
    assert ASKED == []
    good = {"purpose": "TREAT", "resource": "Patient/4711-a.b"}
    assert scene.client.get(f"/named/{scene.patient}/", good).status_code == 200


def test_resource_is_keyed_where_the_settings_say_so(scene: SimpleNamespace, settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "RESOURCE_IDS": "keyed"}
    assert scene.client.get(f"/chart/{scene.patient}/?purpose=TREAT").status_code == 200
    kind, _, written = told()[0][4].partition("/")
    assert (kind, len(written)) == ("Patient", 32)


def test_event_bears_who_and_from_where(scene: SimpleNamespace) -> None:
    scene.client.get(f"/chart/{scene.patient}/?purpose=TREAT")
    (event,) = AuditEvent.objects.filter(action="access.granted")
    assert (event.actor, event.session) == (str(scene.clinician.user.pk), str(scene.clinician.session.pk))
    assert (event.client_ip, bool(event.request_id), event.detail) == ("127.0.0.1", True, "{}")


def test_page_of_nobody_leads_to_the_sign_in_and_back(scene: SimpleNamespace) -> None:
    response = Client().get(f"/chart/{scene.patient}/?purpose=TREAT", headers=PAGE, secure=True)
    assert response.status_code == 302
    assert response["Location"] == f"/oidc/authenticate/?next=/chart/{scene.patient}/%3Fpurpose%3DTREAT"
    assert (response["Cache-Control"], told(), RAN) == ("no-store", [], [])


def test_page_that_is_refused_is_the_hosts_own_and_tells_no_reason(scene: SimpleNamespace) -> None:
    response = scene.client.get(f"/chart/{scene.other}/?purpose=TREAT", headers=PAGE)
    assert (response.status_code, response["Cache-Control"]) == (403, "no-store")
    assert response["Content-Type"].startswith("text/html")
    assert "permission" not in response.content.decode().lower()
    problem = scene.client.get(f"/chart/{scene.other}/?purpose=TREAT").json()
    assert problem == {"title": "Access is denied.", "status": 403, "code": "access_denied"}
    assert len(told()) == 2


def test_page_without_the_trail_says_not_now(scene: SimpleNamespace) -> None:
    with trail_away():
        response = scene.client.get(f"/chart/{scene.patient}/?purpose=TREAT", headers=PAGE)
    assert (response.status_code, response["Cache-Control"]) == (503, "no-store")
    assert "the record can’t be written" in response.content.decode()
    assert RAN == []
    assert scene.client.get(f"/chart/{scene.patient}/?purpose=TREAT", headers=PAGE).status_code == 200


@pytest.mark.parametrize("name", ["cached_inside", "cached_outside"])
def test_page_that_django_would_cache_is_made_anew(name: str, scene: SimpleNamespace) -> None:
    for _ in range(2):
        response = scene.client.get(f"/{name}/{scene.patient}/?purpose=TREAT")
        assert (response.status_code, response["Cache-Control"]) == (200, "no-store")
    assert [name, name] == RAN
    assert len(told()) == 2


@pytest.mark.parametrize("name", ["template", "stream"])
def test_every_kind_of_response_is_kept_by_nobody(name: str, scene: SimpleNamespace) -> None:
    response = scene.client.get(f"/{name}/{scene.patient}/?purpose=TREAT")
    assert (b"".join(response), response["Cache-Control"]) == (b"the chart", "no-store")
    assert scene.client.get(f"/unguarded/{scene.patient}/")["Cache-Control"] == "public, max-age=600"


@pytest.mark.parametrize("view", [wards.chart, wards.Chart.as_view()], ids=["function", "class"])
def test_response_is_kept_by_nobody_without_the_middleware_too(view: Any, scene: SimpleNamespace, rf: Any) -> None:
    request = rf.get("/", {"purpose": "TREAT"})
    request.user, request.session = scene.clinician.user, {SESSION_KEY: str(scene.clinician.session.pk)}
    response = view(request, pk=scene.patient)
    assert (response.content, response["Cache-Control"]) == (b"the chart", "no-store")


GOOD: dict[str, Any] = {"purpose": "TREAT", "resource": wards.resource, "permission": PERMISSION}


async def a_coroutine(request: Any, pk: int) -> Any:
    return None


MISTAKES = {
    "no purpose": {"purpose": ""},
    "a purpose that HL7 has not": {"purpose": "treatment"},
    "a purpose and purposes": {"purposes": ["TREAT"]},
    "a stated purpose without purposes": {"purpose": wards.stated},
    "purposes that HL7 has not": {"purpose": wards.stated, "purposes": ["TREAT", "fun"]},
    "purposes in one text": {"purpose": wards.stated, "purposes": "TREAT"},
    "no permission": {"permission": ""},
    "a blank permission": {"permission": " "},
    "no resource": {"resource": None},
    "a resource that is none": {"resource": "Patient/7"},
    "a resource in a coroutine": {"resource": a_coroutine},
    "a purpose in a coroutine": {"purpose": a_coroutine, "purposes": ["TREAT"]},
    "an object that is none": {"obj": "patient"},
    "an object in a coroutine": {"obj": a_coroutine},
}


@pytest.mark.parametrize("changed", MISTAKES.values(), ids=MISTAKES)
def test_guard_with_one_thing_wrong_is_refused_when_the_view_is_made(changed: dict[str, Any]) -> None:
    phi_access(**GOOD)
    with pytest.raises(DeclarationInvalid):
        phi_access(**{**GOOD, **changed})


@pytest.mark.parametrize("missing", [{"resource"}, {"permission"}, {"purpose"}], ids=str)
def test_guard_without_an_argument_is_refused(missing: set[str]) -> None:
    with pytest.raises(TypeError):
        phi_access(**{name: value for name, value in GOOD.items() if name not in missing})


WRONG_CLASSES: dict[str, dict[str, Any]] = {
    "no permission": {"permission": ""},
    "no purposes": {"purposes": ()},
    "a purpose that is stated and one that is fixed": {"purposes": (), "purpose": "TREAT"},
    "a fixed purpose and purposes": {"get_purpose": PHIAccessMixin.get_purpose, "purpose": "TREAT"},
    "purposes that HL7 has not": {"purposes": ["fun"]},
    "no resource": {"get_resource": PHIAccessMixin.get_resource},
}


@pytest.mark.parametrize("changed", WRONG_CLASSES.values(), ids=WRONG_CLASSES)
def test_class_with_one_thing_wrong_is_refused_when_the_view_is_made(changed: dict[str, Any]) -> None:
    wards.Chart.as_view()
    with pytest.raises(DeclarationInvalid):
        type("Wrong", (wards.Chart,), changed).as_view()  # type: ignore[attr-defined]


def test_class_is_guarded_wherever_the_mixin_stands(rf: Any) -> None:
    class Last(TemplateView, PHIAccessMixin):
        template_name = "missing.html"
        permission, purpose = PERMISSION, "TREAT"

        def get_resource(self) -> str:
            raise AssertionError

    request = rf.get("/", secure=True)
    request.user, request.session = AnonymousUser(), {}
    assert Last.as_view()(request, pk=7).status_code == 401


def test_guard_on_a_method_is_an_error_and_no_hole(rf: Any) -> None:
    class Wrong(View):
        @wards.guard()
        def get(self, request: Any, pk: int) -> Any:
            raise AssertionError

    with pytest.raises(TypeError, match="PHIAccessMixin"):
        Wrong.as_view()(rf.get("/"), pk=7)


def test_guarded_view_keeps_what_it_says_of_itself() -> None:
    def view(request: Any) -> Any:
        """Say something."""

    view.login_required = False  # type: ignore[attr-defined]
    guarded: Any = phi_access(**GOOD)(view)
    assert (guarded.__name__, guarded.__doc__, guarded.login_required) == ("view", "Say something.", False)

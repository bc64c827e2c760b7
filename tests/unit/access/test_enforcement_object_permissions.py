"""Object permissions of django-guardian and rules, with the views of the how-to page."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import rules
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core.checks.registry import registry
from django.db import connection
from django.urls import path

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.claims.categories import create_category_permissions
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.errors import RevealRefused
from tests.support.claims_fixtures import DAY, Person
from tests.support.session_fixtures import BACKEND, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
PAGE = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "guard-a-view.md").read_text()
Assign = Callable[..., None]
"""Grants a user a permission on an object."""
CONTACT = "django_phi_oidc.reveal_storedclaim_contact"


@pytest.fixture(autouse=True)
def hospital(settings: Any) -> Iterator[Any]:
    """Serve the views of the how-to page."""
    hospital = ModuleType("hospital_guarded")
    exec("\n".join(re.findall(r"<!-- tested: \w+ -->\n```python\n(.*?)```", PAGE, re.DOTALL)), vars(hospital))
    vars(hospital)["urlpatterns"] = [
        path("chart/<int:pk>/", hospital.chart),
        path("results/<int:pk>/", hospital.results),
        path("letters/<int:pk>/", hospital.Letters.as_view()),
        path("treatment/<int:pk>/", hospital.treatment),
    ]
    sys.modules["hospital_guarded"] = hospital
    loader = ("django.template.loaders.locmem.Loader", {"letters.html": "The letters"})
    options = {**settings.TEMPLATES[0]["OPTIONS"], "loaders": [loader]}
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": options}]
    settings.ROOT_URLCONF = "hospital_guarded"
    yield hospital
    del sys.modules["hospital_guarded"]


@pytest.fixture
def with_guardian(settings: Any, transactional_db: None) -> Iterator[Assign]:
    """Install django-guardian for one test, without its anonymous user."""
    known = set(registry.registered_checks)
    settings.ANONYMOUS_USER_NAME = None
    settings.GUARDIAN_MONKEY_PATCH_USER = settings.GUARDIAN_MONKEY_PATCH_GROUP = False
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "guardian"]
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "guardian.backends.ObjectPermissionBackend"]
    from guardian.shortcuts import assign_perm  # noqa: PLC0415 -- its models need it installed

    # From the second test of a process on, no model is registered that would make Django expire the cached relations.
    apps.clear_cache()
    models = list(apps.get_app_config("guardian").get_models())
    with connection.schema_editor() as editor:
        for model in models:
            editor.create_model(model)
    yield lambda user, obj, permission="auth.view_user": assign_perm(permission, user, obj)
    with connection.schema_editor() as editor:
        for model in models:
            editor.delete_model(model)
    # Otherwise its system check stays registered for all tests of this process.
    registry.registered_checks = known


@pytest.fixture
def with_rules(settings: Any) -> Iterator[Assign]:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "rules.permissions.ObjectPermissionBackend"]
    treats: set[tuple[Any, Any]] = set()
    # The second permission is also checked without an object.
    predicate = rules.predicate(lambda user, obj: obj is not None and (user.pk, obj.pk) in treats)
    for permission in ("auth.view_user", CONTACT):
        rules.add_perm(permission, predicate)
    yield lambda user, obj, permission="": treats.add((user.pk, obj.pk))
    for permission in ("auth.view_user", CONTACT):
        rules.remove_perm(permission)


@pytest.mark.parametrize("backend_fixture", ["with_guardian", "with_rules"])
def test_views_of_the_page_check_object_permissions(
    backend_fixture: str,
    sign_in: Callable[[], SignedIn],
    request: pytest.FixtureRequest,
) -> None:
    assign = request.getfixturevalue(backend_fixture)
    users = get_user_model()._default_manager
    patient, other = (users.create_user(username=name) for name in ("patient", "other"))
    clinician = sign_in()
    client = clinician.client()
    assert client.get(f"/chart/{patient.pk}/").status_code == 403
    assign(clinician.user, patient)
    assert client.get(f"/chart/{patient.pk}/").content == f"The chart of {patient.pk}".encode()
    assert client.get(f"/chart/{other.pk}/").status_code == 403
    assert client.get("/chart/999999/").status_code == 403
    answers = [client.post(f"/results/{patient.pk}/", {"purpose": purpose}) for purpose in ("HOPERAT", "HMARKT", "")]
    assert [answer.status_code for answer in answers] == [200, 403, 403]
    letters = client.get(f"/letters/{patient.pk}/")
    assert (letters.content, letters["Cache-Control"]) == (b"The letters", "no-store")
    assert client.get(f"/letters/{other.pk}/").status_code == 403
    events = AuditEvent.objects.filter(action__startswith="access.").order_by("id").values_list("reason", "purpose")
    assert list(events) == [
        *(("permission_missing", "TREAT"), ("", "TREAT"), ("permission_missing", "TREAT")),
        *(("permission_missing", "TREAT"), ("", "HOPERAT"), ("purpose_not_declared", "HMARKT")),
        *(("purpose_unknown", ""), ("", "HOPERAT"), ("permission_missing", "HOPERAT")),
    ]


@pytest.mark.parametrize("backend_fixture", ["with_guardian", "with_rules"])
def test_g8_object_permissions_on_the_subject_decide_about_claims(
    backend_fixture: str, settings: Any, request: pytest.FixtureRequest
) -> None:
    claim = {"purpose": "TREAT", "basis": "calls", "retention": DAY, "category": "contact"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": {"phone": claim}}
    assign = request.getfixturevalue(backend_fixture)
    create_category_permissions(using="default")
    clinician, patient, other = Person(), Person(), Person()
    for person in (patient, other):
        person.store({"phone": "canary"}, declared={"phone": claim}, now=clock.now())
    assign(clinician.user, patient.subject, CONTACT)
    assert reveal(clinician.actor(), patient.user, "phone", purpose="TREAT") == "canary"
    with pytest.raises(RevealRefused, match="permission_missing"):
        reveal(clinician.actor(), other.user, "phone", purpose="TREAT")


def test_g16_view_of_the_page_needs_a_consent(
    with_rules: Assign, hospital: Any, sign_in: Callable[[], SignedIn]
) -> None:
    clinician, patient = sign_in(), get_user_model()._default_manager.create_user(username="patient")
    with_rules(clinician.user, patient)
    client = clinician.client()
    assert client.get(f"/treatment/{patient.pk}/").status_code == 403
    hospital.CONSENTS[patient.pk] = "Consent/26-4712"
    response = client.get(f"/treatment/{patient.pk}/")
    assert response.content == f"The treatment of {patient.pk}".encode()
    assert response["Redisclosure-Notice"] == "42 CFR part 2 prohibits unauthorized use or disclosure of these records."

"""The pages about the portal's own APIs: the how-to works as written, and the reference lists each reason."""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.urls import path
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from django_phi_oidc.contrib.apis import access_token, api_tokens, confirmation, dpop_proof, introspection
from django_phi_oidc.contrib.common import dpop_proofs
from django_phi_oidc.contrib.rest_framework import authentication
from django_phi_oidc.contrib.rest_framework.exceptions import SCOPE_MISSING, TOKEN_MISPLACED
from django_phi_oidc.errors import Code, DeclarationInvalid
from django_phi_oidc.oidc import id_token
from django_phi_oidc.testing.mock_provider import DemoProvider, Resource
from tests.support import guarded_views as wards
from tests.support.api_fixtures import (  # noqa: F401 -- fixtures
    API,
    EVERYTHING,
    App,
    _hospital,
    _logs_hold_no_secret,
    app,
    decisions,
    declare,
    op,
    op_keys,
    refusals,
)
from tests.support.guarded_views import HELD

pytestmark = pytest.mark.django_db(**EVERYTHING)
ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "how-to" / "guard-an-api.md").read_text()
BLOCKS = dict(re.findall(r"<!-- tested: (\w+) -->\n```python\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def portal(app: App, op: DemoProvider, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """Serve the views of the page with its settings."""
    phi_oidc = {name: value for name, value in settings.PHI_OIDC.items() if name != "API"}
    exec(BLOCKS["settings"], {"PHI_OIDC": phi_oidc})
    settings.PHI_OIDC = phi_oidc
    op.register_resource(Resource(API, ["chart.read", "chart.write"], issues_jwt=False))
    monkeypatch.setattr(wards, "PERMISSION", "auth.view_user")
    module = ModuleType("hospital_of_the_page")
    exec(BLOCKS["views"], vars(module))
    vars(module)["urlpatterns"] = [
        path("chart/<int:pk>/", module.Chart.as_view()),
        path("consent/", module.Consent.as_view()),
    ]
    sys.modules["hospital_of_the_page"] = module
    settings.ROOT_URLCONF = "hospital_of_the_page"
    yield app
    del sys.modules["hospital_of_the_page"]


def test_page_works_as_described(portal: App, op: DemoProvider) -> None:
    patient = get_user_model()._default_manager.create_user(username="patient")
    HELD.add((portal.user.pk, patient.pk))
    token = portal.token(scope="openid chart.read")
    assert portal.get(f"/chart/{patient.pk}/", token).json() == {"chart": patient.pk}
    assert portal.get(f"/chart/{portal.user.pk}/", token).status_code == 403
    assert [action for action, *_ in decisions()] == ["access.granted", "access.denied"]
    header = {"Authorization": f"Bearer {token}"}
    assert "insufficient_scope" in portal.client.post("/consent/", headers=header)["WWW-Authenticate"]
    header = {"Authorization": f"Bearer {portal.token(scope='openid chart.write')}"}
    weak = portal.client.post("/consent/", headers=header)
    assert (weak.status_code, 'max_age="300"' in weak["WWW-Authenticate"]) == (401, True)
    stronger = portal.token(scope="openid chart.write", acr_values="urn:example:loa:3", prompt="login")
    response = portal.client.post("/consent/", headers={"Authorization": f"Bearer {stronger}"})
    assert response.json() == {"consent": "given"}
    assert [reason for reason, *_ in refusals()] == ["scope_missing"]


def test_defaults_of_the_page_protect_each_view(app: App, settings: Any, rf: Any) -> None:
    namespace: dict[str, Any] = {}
    exec(BLOCKS["defaults"], namespace)
    settings.REST_FRAMEWORK = namespace["REST_FRAMEWORK"]

    class Forgotten(APIView):
        authentication_classes = api_settings.DEFAULT_AUTHENTICATION_CLASSES
        permission_classes = api_settings.DEFAULT_PERMISSION_CLASSES

    with pytest.raises(DeclarationInvalid):
        Forgotten.as_view()(rf.get("/"))


def test_each_reason_is_documented() -> None:
    """Compare the reasons in the code with the rows of the reference page."""
    modules: tuple[ModuleType, ...] = (
        access_token,
        confirmation,
        dpop_proofs,
        introspection,
        authentication,
        api_tokens,
        dpop_proof,
    )
    source = "".join(Path(str(module.__file__)).read_text() for module in modules)
    reasons = set(re.findall(r'(?:AccessToken|DPoPProof)Invalid\("(\w+)"\)', source)) | {SCOPE_MISSING, TOKEN_MISPLACED}
    # The rules that access tokens share with ID Tokens.
    validators = [function for name in re.findall(r"validate_\w+", source) if (function := vars(id_token).get(name))]
    shared = source + "".join(map(inspect.getsource, validators))
    reasons |= {Code[name] for name in re.findall(r"IDTokenError\(Code\.(\w+)", shared)}
    reasons |= {Code.KEY_NOT_FOUND, Code.NOT_PROVISIONED, Code.USER_INACTIVE}
    rows = (ROOT / "docs" / "reference" / "api.md").read_text().partition("## Why a token is refused")[2]
    documented = [line.split("|")[1] for line in rows.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", "".join(documented))) == reasons

"""Signed and opaque access tokens that the npm oidc-provider issues to an app, at the portal's API."""

import base64
import hashlib
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from django.contrib.auth import get_user_model

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.crypto import keyring
from django_phi_oidc.oidc.jose import parse_compact_jws
from django_phi_oidc.subjects.linking import get_or_create_account
from tests.integration.interop.conftest import REFRESHING, Declare, client
from tests.support.certified_provider import SECRET, CertifiedProvider
from tests.support.guarded_views import HELD, PERMISSION
from tests.support.portal_fixtures import EVERYTHING, events
from tests.support.session_fixtures import BACKEND, SecureClient

pytestmark = [pytest.mark.node, pytest.mark.django_db(**EVERYTHING)]

API, OPAQUE, OTHER = "https://portal.example/api", "https://portal.example/opaque", "https://lab.example/api"
SCOPE = "chart.read chart.write"
APIS = {
    API: {"scope": SCOPE, "accessTokenFormat": "jwt", "jwt": {"sign": {"alg": "ES256"}}},
    OPAQUE: {"scope": SCOPE, "accessTokenFormat": "opaque"},
    OTHER: {"scope": SCOPE, "accessTokenFormat": "jwt", "jwt": {"sign": {"alg": "ES256"}}},
}
RESOURCE = [("resource", api) for api in APIS]
CALLBACK = "https://app.example/cb"
VERIFIER = "a-verifier-of-forty-three-characters-or-more-0123456789"


class App:
    """Another client application and its user amina, who signs in by HTTP without a browser."""

    def __init__(self, op: CertifiedProvider) -> None:
        self.op = op
        self.web = requests.Session()
        self.web.trust_env, self.web.verify = False, op.ca_bundle
        self.tokens = self._redeem(self._code())

    def _code(self) -> str:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
        request = {"client_id": "app", "redirect_uri": CALLBACK, "response_type": "code", "scope": f"openid {SCOPE}"}
        proof = {"code_challenge": challenge, "code_challenge_method": "S256"}
        location, forms = f"{self.op.issuer}/auth", [{"username": "amina"}, {"decision": "allow"}]
        answer = self.web.get(location, params=[*request.items(), *proof.items(), *RESOURCE], allow_redirects=False)
        while not (location := answer.headers.get("Location", "")).startswith(CALLBACK):
            if location:
                answer = self.web.get(requests.compat.urljoin(answer.url, location), allow_redirects=False)
            else:
                answer = self.web.post(answer.url, data=forms.pop(0), allow_redirects=False)
        return parse_qs(urlsplit(location).query)["code"][0]

    def _redeem(self, code: str) -> dict[str, Any]:
        form = {"code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}
        return self._ask("token", grant_type="authorization_code", resource=API, **form)

    def token(self, resource: str, scope: str = SCOPE) -> str:
        """Return another access token of the same grant."""
        form = {"grant_type": "refresh_token", "refresh_token": self.tokens["refresh_token"]}
        self.tokens = {**self.tokens, **self._ask("token", resource=resource, scope=scope, **form)}
        return str(self.tokens["access_token"])

    def revoke(self, token: str) -> None:
        self._ask("token/revocation", token=token)

    def _ask(self, path: str, **form: str) -> dict[str, Any]:
        auth = tuple(requests.utils.quote(part, safe="") for part in ("app", SECRET))
        answer = self.web.post(f"{self.op.issuer}/{path}", data=form, auth=auth)
        assert answer.status_code == 200, answer.text
        return answer.json() if answer.content else {}


@pytest.fixture
def app(op: CertifiedProvider, portal: str, declare: Declare, settings: Any) -> App:
    settings.ROOT_URLCONF = "tests.support.api_views"
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if not name.startswith("portal.")]
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    app = client(portal, "app", redirect_uris=[CALLBACK], post_logout_redirect_uris=[], **REFRESHING)
    op.configure(client(portal), app, apis=APIS, par="off", refresh_unasked=True)
    # ID Tokens are signed with PS256, the API's tokens with ES256.
    declare(default={"id_token_signed_response_alg": ["PS256", "ES256"]})
    return App(op)


def declare_api(settings: Any, **api: Any) -> None:
    declared = {"audience": API, "method": "jwt", "scopes": {"chart.read": [PERMISSION]}, **api}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "API": {"default": declared}}


def create_linked_user(op: CertifiedProvider, sub: str) -> Any:
    person = get_or_create_account(
        issuer=op.issuer,
        sub=sub,
        keys=keyring.get_keys("subject"),
        create_user=lambda: get_user_model()._default_manager.create_user(username="amina"),
        origin=Origin(),
        provider="default",
        now=clock.now(),
    )
    return person.user


def call_api(path: str, token: str) -> tuple[int, str]:
    """Return the status and the error code of the challenge."""
    response = SecureClient().get(path, headers={"Authorization": f"Bearer {token}"})
    error = re.search(r'error="(\w+)"', response.get("WWW-Authenticate", ""))
    return response.status_code, error[1] if error else ""


def reasons() -> list[str]:
    return [event.reason for event in events(action="api.refused")]


INVALID = (401, "invalid_token")


def test_only_signed_tokens_for_the_api_are_accepted(op: CertifiedProvider, app: App, settings: Any) -> None:
    declare_api(settings)
    token = app.tokens["access_token"]
    assert call_api("/whoami/", token) == INVALID, "no user is linked"
    user = create_linked_user(op, parse_compact_jws(token).payload["sub"])
    HELD.clear()
    HELD.add((user.pk, user.pk))
    assert call_api(f"/chart/{user.pk}/", token) == (200, "")
    assert call_api("/whoami/", app.tokens["id_token"]) == INVALID
    assert call_api("/whoami/", app.token(OTHER)) == INVALID
    assert call_api("/whoami/", app.token(OPAQUE)) == INVALID
    assert call_api(f"/chart/{user.pk}/", app.token(API, "chart.write")) == (403, "insufficient_scope")
    expected = ["not_provisioned", "typ_invalid", "aud_invalid", "token_malformed", "scope_missing"]
    assert reasons() == expected
    op.rotate()
    assert call_api("/whoami/", app.token(API)) == (200, ""), "the new keys are fetched"
    HELD.clear()


def test_opaque_token_is_accepted_while_introspection_calls_it_active(
    op: CertifiedProvider, app: App, settings: Any
) -> None:
    declare_api(settings, audience=OPAQUE, method="introspection", introspection_cache=0)
    token = app.token(OPAQUE)
    create_linked_user(op, op.introspect(token)["sub"])
    assert call_api("/whoami/", token) == (200, "")
    assert call_api("/whoami/", app.tokens["refresh_token"]) == INVALID
    assert call_api("/whoami/", app.tokens["id_token"]) == INVALID
    assert call_api("/whoami/", token) == (200, "")
    app.revoke(token)
    assert call_api("/whoami/", token) == INVALID
    assert (reasons()[0], reasons()[-1]) == ("aud_invalid", "token_inactive")

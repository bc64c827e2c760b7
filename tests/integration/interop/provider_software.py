"""The provider software that the profiles run on: its pages, and which tokens it still accepts."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import requests

from tests.integration.interop.conftest import build_glewlwyd_client, client
from tests.integration.interop.form_login import FormPerson
from tests.support.certified_provider import SECRET, CertifiedProvider
from tests.support.django_provider import DjangoProvider
from tests.support.glewlwyd import Glewlwyd
from tests.support.lemonldap import LemonLDAP

MAX_PAGES = 8
REFUSALS = {"deny", "cancel", "stay", "Cancel"}
"""Values of the buttons that are not pressed."""


class ProviderPage(HTMLParser):
    """A page of a provider: the fields of its first form that is sent by POST."""

    def __init__(self, page: requests.Response) -> None:
        super().__init__()
        self.action = ""
        self.fields: list[tuple[str, str]] = []
        self.names: list[str] = []
        """Of the fields that a user fills in."""
        self._state = "before"
        self._has_button = False
        self._id: str | None = None
        self.feed(page.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form" and self._state == "before" and attributes.get("method", "").lower() == "post":
            self._state, self.action = "inside", attributes.get("action", "")
            self._id = attributes.get("id")
        elif tag in ("input", "button") and (
            self._state == "inside" or (attributes.get("form") == self._id and self._id)
        ):
            self._add(attributes, attributes.get("type", "submit" if tag == "button" else "text"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form" and self._state == "inside":
            self._state = "after"

    def _add(self, attributes: Mapping[str, str], kind: str) -> None:
        name, value = attributes.get("name", ""), attributes.get("value", "")
        if kind == "submit":
            if name and value not in REFUSALS and not self._has_button:
                self.fields.append((name, value))
                self._has_button = True
        elif kind in ("hidden", "checkbox") and name:
            self.fields.append((name, value))
        elif name:
            self.names.append(name)

    @property
    def has_form(self) -> bool:
        return self._state != "before"


class ProviderUser(FormPerson):
    """A user who fills in the forms of a provider until the portal is reached."""

    answers: Mapping[str, str] = {}

    def follow(self, page: requests.Response) -> requests.Response:
        """Answer each page of the provider, and return the first page that is not a form, or of the portal."""
        for _ in range(MAX_PAGES):
            if page.url.startswith(self.portal):
                break
            following = self.answer(page)
            if following is None:
                break
            page = following
        return page

    def answer(self, page: requests.Response) -> requests.Response | None:
        form = ProviderPage(page)
        if not form.has_form:
            return None
        fields = [*form.fields, *((name, self.answers.get(name, "")) for name in form.names)]
        url = urljoin(page.url, form.action)
        return self.web.post(url, data=fields, headers={"Referer": page.url}, timeout=20)

    def is_asked_to_sign_in(self, page: requests.Response) -> bool:
        return bool({"username", "login", "user"} & set(ProviderPage(page).names))


class GlewlwydUser(ProviderUser):
    """A user of Glewlwyd, whose pages are JavaScript: this sends what they send."""

    def answer(self, page: requests.Response) -> requests.Response | None:
        url = urlsplit(page.url)
        if not url.path.endswith("/login.html"):
            return None
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        root = f"{url.scheme}://{url.netloc}"
        if query.get("prompt") == "end_session":
            session = f"{root}/api/{query['plugin']}/session/{query['sid']}"
            self._send("DELETE", session)
            self._send("DELETE", f"{root}/api/auth/")
            return self.web.get(query["callback_url"], timeout=20)
        self._send("POST", f"{root}/api/auth/", json=dict(self.answers))
        scope = {"scope": query["scope"]}
        self._send("PUT", f"{root}/api/auth/grant/{query['client_id']}", json=scope)
        return self.web.get(f"{query['callback_url']}&g_continue", timeout=20)

    def is_asked_to_sign_in(self, page: requests.Response) -> bool:
        root = "{0.scheme}://{0.netloc}".format(urlsplit(page.url))
        return self.web.get(f"{root}/api/profile_list", timeout=20).status_code == 401

    def _send(self, method: str, url: str, **options: Any) -> None:
        answer = self.web.request(method, url, timeout=20, **options)
        assert answer.status_code == 200, f"{method} {url}: {answer.status_code} {answer.text}"


class ProviderSoftware(ABC):
    """What the steps of a test need of a running provider."""

    user_class: type[ProviderUser] = ProviderUser

    def __init__(self, server: Any, *, secret: str = SECRET, **answers: str) -> None:
        """answers: what the user enters, by the name of the field."""
        self.server = server
        self.secret = secret
        self.answers = answers

    @property
    def issuer(self) -> str:
        return str(self.server.issuer)

    def start(  # noqa: B027 -- the others are configured when their process starts
        self, portal: str, configuration: Mapping[str, Any], metadata: Mapping[str, Any]
    ) -> None:
        """Configure the software, and register the portal."""

    @abstractmethod
    def is_live(self, kind: str, token: str) -> bool:
        """Ask the provider whether it still accepts the token. An accepted refresh token may be used up."""

    def create_user(self, portal: str) -> ProviderUser:
        user = self.user_class(portal, self.issuer, str(self.server.ca_bundle))
        user.answers = self.answers
        return user


class CertifiedSoftware(ProviderSoftware):
    """The npm oidc-provider, configured as another provider."""

    server: CertifiedProvider

    def start(self, portal: str, configuration: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        self.server.configure(client(portal, **metadata), **configuration)

    def is_live(self, kind: str, token: str) -> bool:
        return bool(self.server.introspect(token)["active"])


class GlewlwydSoftware(ProviderSoftware):
    """Glewlwyd, with its plugin for OpenID Connect."""

    server: Glewlwyd
    user_class = GlewlwydUser

    def start(self, portal: str, configuration: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
        self.server.register({**build_glewlwyd_client(portal), **metadata})

    def is_live(self, kind: str, token: str) -> bool:
        return bool(self.server.introspect(token, client=build_glewlwyd_client(""))["active"])


class LemonLDAPSoftware(ProviderSoftware):
    """LemonLDAP::NG in its demonstration mode."""

    server: LemonLDAP

    def is_live(self, kind: str, token: str) -> bool:
        if kind == "refresh_token":
            return is_refreshed(self.server.refresh(token))
        return bool(self.server.introspect(token)["active"])


class DjangoSoftware(ProviderSoftware):
    """A provider of a Django project."""

    server: DjangoProvider

    def is_live(self, kind: str, token: str) -> bool:
        if kind == "refresh_token":
            return is_refreshed(self.server.refresh(token))
        response = self.server.request_userinfo(token)
        assert response.status_code in (200, 401), response.text
        return response.status_code == 200


def is_refreshed(response: requests.Response) -> bool:
    """Say whether a refresh token was accepted, and not refused for another reason. Spec: RFC 6749 5.2."""
    if response.status_code == 200:
        return True
    assert response.json()["error"] == "invalid_grant", response.text
    return False

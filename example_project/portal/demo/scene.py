"""What the steps share: the accounts, Amina's browser, and helpers for the portal and the provider."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from django_phi_oidc.fields import SealedTextField
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import Account

from . import hostile_provider
from .browser import Browser, Page
from .services import ROOT

TIMEOUT_SECONDS = 45.0


class StepFailed(Exception):
    """A step failed. The message says what was observed, without secrets."""


def expect(condition: object, failure_message: str) -> None:
    """Raises: StepFailed if the condition is false."""
    if not condition:
        raise StepFailed(failure_message)


def wait_for(condition: Callable[[], object], failure_message: str, *, seconds: float = TIMEOUT_SECONDS) -> None:
    """Wait until the condition is true.

    Raises: StepFailed if it is not true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, failure_message)
        time.sleep(0.1)


@dataclass(kw_only=True)
class Scene:
    """The state of one run of the demo."""

    portal: str
    provider: str
    client: tuple[str, str] = field(repr=False)
    var: Path
    amina: Account
    jonas: Account
    lena: Account
    otto: Account
    browser: Browser = field(default_factory=Browser)
    callback: str = field(default="", repr=False)
    tokens: dict[str, str] = field(default_factory=dict, repr=False)

    def is_callback(self, url: str) -> bool:
        """Return whether url is the portal's callback."""
        return urlsplit(url).path == "/oidc/callback/"

    def authenticate(
        self, browser: Browser, account: Account, *, stop_at_callback: bool, path: str = "/portal/"
    ) -> Page:
        """Open a page of the portal, sign in at the provider, and return the resulting page.

        stop_at_callback: return the redirect to the callback instead of following it.
        """
        login = browser.open(self.portal + path)
        message = f"the portal returned {login.status} and did not redirect to the provider"
        expect(login.url.startswith(self.provider), message)
        until = self.is_callback if stop_at_callback else lambda url: False
        return browser.submit(login, self.build_login_fields(account), until=until)

    def build_login_fields(self, account: Account) -> dict[str, str]:
        """Return the fields for the provider's login form."""
        return {"username": account.username, "password": account.password, "decision": "sign-in"}

    def sign_in_amina(self) -> Page:
        """Sign Amina in, and store her callback URL and tokens for later steps."""
        redirect = self.authenticate(self.browser, self.amina, stop_at_callback=True)
        expect(self.is_callback(redirect.location), f"the provider returned {redirect.status} and no callback")
        self.callback = redirect.location
        page = self.browser.open(redirect.location)
        self.tokens = decrypt_tokens(OIDCSession.objects.filter(ended_at=None).latest("started_at"))
        return page

    def is_active(self, token: str) -> bool:
        """Return whether the provider still accepts the token."""
        return self.introspect(token)["active"] is True

    def introspect(self, token: str) -> dict[str, Any]:
        """Introspect a token at the provider. Spec: RFC 7662."""
        page = Browser().post(f"{self.provider}/introspect", {"token": token}, client=self.client)
        expect(page.status == 200, f"introspection returned {page.status}")
        return cast(dict[str, Any], json.loads(page.body))

    def order(self, order: str) -> None:
        """Send the provider one of hostile_provider.ORDERS."""
        page = Browser().post(self.provider + hostile_provider.ORDER_PATH, {"next": order}, client=self.client)
        expect(page.status == 200, f"the provider returned {page.status} and did not accept the order")

    def manage(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a management command with additional variables."""
        return self.run_python("manage.py", *arguments, **variables)

    def run_python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the example's directory."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_SECONDS,
        )

    def list_last_issued_tokens(self) -> list[str]:
        """Return the tokens that the provider issued at the latest sign-in."""
        page = Browser().post(self.provider + hostile_provider.ISSUED_PATH, {}, client=self.client)
        return cast(list[str], json.loads(page.body))


def decrypt_tokens(session: OIDCSession) -> dict[str, str]:
    """Return the tokens of a session by name, decrypted with the demo's keys."""
    tokens: dict[str, str] = {}
    for column in ("access_token", "refresh_token", "id_token"):
        field: Any = OIDCSession._meta.get_field(column)
        tokens[column.replace("_", " ")] = cast(SealedTextField, field).decrypt(session) or ""
    return {name: token for name, token in tokens.items() if token}

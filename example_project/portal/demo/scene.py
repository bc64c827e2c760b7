"""What the steps of the story share: the people, their browsers, and the two sides of the wire."""

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

SECONDS = 45.0


class NotHeld(Exception):
    """A step of the story did not hold; the text says what was seen instead, and no secret."""


def expect(condition: object, otherwise: str) -> None:
    """Go on if the condition holds.

    Raises: NotHeld.
    """
    if not condition:
        raise NotHeld(otherwise)


def eventually(condition: Callable[[], object], otherwise: str, *, seconds: float = SECONDS) -> None:
    """Go on as soon as the condition holds.

    Raises: NotHeld when it does not in that time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        expect(time.monotonic() < deadline, otherwise)
        time.sleep(0.1)


@dataclass(kw_only=True)
class Scene:
    """One telling of the story."""

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

    def at_callback(self, url: str) -> bool:
        """Say whether url is the portal's callback."""
        return urlsplit(url).path == "/oidc/callback/"

    def authenticate(self, browser: Browser, person: Account, *, hold: bool, path: str = "/portal/") -> Page:
        """Let a person who wants to see a page of the portal sign in, or sign in more strongly.

        hold: stop before the way back to the portal is taken.
        """
        login = browser.open(self.portal + path)
        expect(
            login.url.startswith(self.provider), f"the portal answered {login.status} and did not lead to the provider"
        )
        return browser.submit(login, self.answer(person), until=self.at_callback if hold else lambda url: False)

    def answer(self, person: Account) -> dict[str, str]:
        """Return what a person enters on the provider's page."""
        return {"username": person.username, "password": person.password, "decision": "sign-in"}

    def sign_in_amina(self) -> Page:
        """Let Amina sign in, and keep what later steps look for."""
        held = self.authenticate(self.browser, self.amina, hold=True)
        expect(self.at_callback(held.location), f"the provider answered {held.status} and sent nobody back")
        self.callback = held.location
        page = self.browser.open(held.location)
        self.tokens = tokens_of(OIDCSession.objects.filter(ended_at=None).latest("started_at"))
        return page

    def is_alive(self, token: str) -> bool:
        """Say whether the provider still honours a token."""
        return self.introspect(token)["active"] is True

    def introspect(self, token: str) -> dict[str, Any]:
        """Ask the provider about a token. Spec: RFC 7662."""
        answer = Browser().post(f"{self.provider}/introspect", {"token": token}, client=self.client)
        expect(answer.status == 200, f"introspection answered {answer.status}")
        return cast(dict[str, Any], json.loads(answer.body))

    def order(self, what: str) -> None:
        """Make the provider do one of hostile_provider.ORDERS."""
        answer = Browser().post(self.provider + hostile_provider.LIE, {"next": what}, client=self.client)
        expect(answer.status == 200, f"the provider answered {answer.status} and would not do as it was told")

    def manage(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the portal's as an operator does, with further variables."""
        return self.python("manage.py", *arguments, **variables)

    def python(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python in the example's directory."""
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def issued_last(self) -> list[str]:
        """Return the tokens that the provider issued at its latest sign-in."""
        answer = Browser().post(self.provider + hostile_provider.ISSUED, {}, client=self.client)
        return cast(list[str], json.loads(answer.body))


def tokens_of(session: OIDCSession) -> dict[str, str]:
    """Return the tokens of a session by what they are called, opened with the demo's own keys."""
    opened: dict[str, str] = {}
    for column in ("access_token", "refresh_token", "id_token"):
        sealed: Any = OIDCSession._meta.get_field(column)
        opened[column.replace("_", " ")] = cast(SealedTextField, sealed).decrypt(session) or ""
    return {name: token for name, token in opened.items() if token}

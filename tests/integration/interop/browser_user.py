"""A user with a real browser, on the pages of the portal and the provider."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.external_tools import CHROMIUM

CONSENT_LINK = "a[href*='replace=']"


@dataclass(frozen=True)
class Person:
    """A user with a separate browser context and one page."""

    page: Any
    portal: str
    issuer: str

    def begin(self, path: str = "/portal/") -> None:
        """Open a page of the portal that requires a sign-in; confirm a sign-in that replaces a session."""
        self.page.goto(f"{self.portal}{path}")
        if self.page.query_selector(CONSENT_LINK):
            self.confirm()

    def confirm(self) -> None:
        """Follow the link of the page that asks whether to replace the session."""
        self.page.click(CONSENT_LINK)

    def sign_in(self, name: str = "amina", *, code: str | None = None) -> None:
        """Submit a username to the provider and, if given, the code of the second factor."""
        self.page.fill("[name=username]", name)
        self.page.click("[value=password]")
        if code is not None:
            self.page.fill("[name=code]", code)
            self.page.click("[value=code]")

    def allow(self) -> None:
        """Consent to the requested scopes and claims."""
        self.page.click("[value=allow]")

    def is_signed_in(self) -> bool:
        """Wait for the portal's page and return whether the user is signed in there."""
        self.page.wait_for_url(f"{self.portal}/portal/**")
        return self.page.get_attribute("body", "data-user") is not None

    def provider_heading(self) -> str:
        """Wait for a page of the provider and return its heading."""
        self.page.wait_for_url(f"{self.issuer}/**")
        return str(self.page.inner_text("h1"))

    def reference(self) -> str:
        """Return the reference on the page of a refused sign-in."""
        self.page.wait_for_url(f"{self.portal}/oidc/**")
        return str(self.page.inner_text(".reference code"))

    def try_again(self) -> None:
        """Click the restart button of that page."""
        self.page.click("main .button")


def chromium_arguments(certificate: Path) -> list[str]:
    """Return Chromium's arguments, which accept this certificate without a public CA."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    pin = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return [*CHROMIUM, f"--ignore-certificate-errors-spki-list={base64.b64encode(pin).decode()}"]

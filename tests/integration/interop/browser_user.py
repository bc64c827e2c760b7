"""A person at a browser: what they click on the pages of the portal and of the provider."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.external_tools import CHROMIUM


@dataclass(frozen=True)
class Person:
    """One browser with cookies of its own, on one page."""

    page: Any
    portal: str
    issuer: str

    def begin(self, path: str = "/portal/") -> None:
        """Go to a page of the portal that only signed-in people see."""
        self.page.goto(f"{self.portal}{path}")

    def sign_in(self, name: str = "amina", *, code: str | None = None) -> None:
        """Give the provider a name and, where it wants a second factor, a code."""
        self.page.fill("[name=username]", name)
        self.page.click("[value=password]")
        if code is not None:
            self.page.fill("[name=code]", code)
            self.page.click("[value=code]")

    def allow(self) -> None:
        """Allow the provider to tell what the portal asked for."""
        self.page.click("[value=allow]")

    def arrives(self) -> bool:
        """Say whether this is the portal's page for signed-in people, once it has come."""
        self.page.wait_for_url(f"{self.portal}/portal/**")
        return self.page.get_attribute("body", "data-user") is not None

    def asked(self) -> str:
        """Return the question at the head of the provider's page."""
        self.page.wait_for_url(f"{self.issuer}/**")
        return str(self.page.inner_text("h1"))

    def reference(self) -> str:
        """Return what the page of a refused sign-in gives for the help desk."""
        self.page.wait_for_url(f"{self.portal}/oidc/**")
        return str(self.page.inner_text(".reference code"))

    def tries_again(self) -> None:
        """Follow the advice of that page."""
        self.page.click("main .button")


def arguments(certificate: Path) -> list[str]:
    """Return Chromium's arguments. Of the certificates that no public CA has signed it takes this one."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    pin = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    return [*CHROMIUM, f"--ignore-certificate-errors-spki-list={base64.b64encode(pin).decode()}"]

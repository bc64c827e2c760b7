"""A user on the pages of the portal, of Glewlwyd and of LemonLDAP::NG."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Visitor:
    """A user with one page of a browser."""

    page: Any
    portal: str

    def begin(self) -> None:
        """Open a page of the portal that requires a sign-in."""
        self.page.goto(f"{self.portal}/portal/")

    def is_signed_in(self) -> bool:
        """Wait for the portal's page and return whether the user is signed in there."""
        self.page.wait_for_url(f"{self.portal}/portal/**")
        return self.page.get_attribute("body", "data-user") is not None

    def sign_out(self) -> None:
        """Click the portal's button."""
        self.page.get_by_role("button", name="Sign out").click()

    def is_informed(self) -> bool:
        """Wait for the signed-out page and return whether it says that the provider has returned the state."""
        self.page.wait_for_url(f"{self.portal}/oidc/logged-out/**")
        return "your sign-in service has been informed" in self.page.inner_text("main")

    def click(self, name: str) -> None:
        """Click a button of the provider."""
        self.page.get_by_role("button", name=name).first.click()

    def sign_in_at_glewlwyd(self, username: str, password: str) -> None:
        """Submit the password, and grant access at the first time."""
        self.page.fill("#username", username)
        self.page.fill("#password", password)
        self.page.click("#loginbut")
        allow, go_on = (self.page.get_by_role("button", name=name) for name in ("Grant access", "Continue"))
        allow.or_(go_on).first.wait_for()
        if allow.count():
            for box in self.page.locator("input[type=checkbox]").all():
                box.check()
            allow.click()
        go_on.click()

    def asks_for_a_password_at_glewlwyd(self) -> bool:
        """Wait for the sign-in page and return whether nobody is signed in there."""
        field = self.page.locator("#password")
        field.or_(self.page.get_by_role("button", name="Continue")).first.wait_for()
        return bool(field.count())

    def sign_in_at_lemonldap(self, username: str) -> None:
        """Submit the password, which is the name in its demonstration mode."""
        self.page.fill("[name=user]", username)
        self.page.fill("[name=password]", username)
        self.page.keyboard.press("Enter")

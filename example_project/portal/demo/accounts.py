"""The accounts of the demo: their roles, and what to click first with each."""

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

from django_phi_oidc.testing.mock_provider import Account

WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """The role of an account, and the first links and buttons to click in the portal after the sign-in."""

    role: str
    clicks: tuple[str, ...]
    result: str


INTRODUCTIONS = {
    "amina": Introduction(
        role="patient",
        clicks=("See my details", "Show my details"),
        result="Her details, decrypted for the purpose that she chose.",
    ),
    "jonas": Introduction(
        role="patient",
        clicks=("See my chart",),
        result="His chart, without a step-up: he always signs in with a second factor.",
    ),
    "lena": Introduction(
        role="clinician",
        clicks=("Patients", "Open the chart"),
        result="A refusal, because she does not treat this patient, with a link to emergency access.",
    ),
    "otto": Introduction(
        role="privacy officer",
        clicks=("Emergencies",),
        result="Lena’s emergency access to Amina’s chart, which he has reviewed.",
    ),
    "sara": Introduction(
        role="security officer",
        clicks=("Admin", "Open alerts"),
        result="The alerts that the steps above have raised.",
    ),
    "hugo": Introduction(
        role="help desk",
        clicks=("Admin", "OIDC sessions"),
        result="The sessions. Choose one and “End now”: its user has to sign in again.",
    ),
}


def format_introduction(account: Account) -> str:
    """Return the lines about an account: name, password, role, what to click first, and what that shows."""
    introduction = INTRODUCTIONS[account.username]
    clicks = ", then ".join(f"“{label}”" for label in introduction.clicks)
    text = f"Click {clicks}. {introduction.result}"
    paragraph = textwrap.fill(text, WIDTH, initial_indent=" " * 9, subsequent_indent=" " * 9, break_on_hyphens=False)
    return f"  {account.username:<6} password {account.password:<11}  {introduction.role}\n{paragraph}"


def format_guide(*, portal: str, provider: str, accounts: Iterable[Account]) -> str:
    """Return the addresses and the accounts."""
    return "\n".join(
        [
            f"Portal             {portal}",
            f"Its admin          {portal}/admin/",
            f"Identity provider  {provider}",
            "",
            f"Open {portal}, click “Sign in”, and use one of these accounts at the identity provider.",
            "Sign out before you use another one, or open a private window.",
            "",
            *map(format_introduction, accounts),
        ]
    )

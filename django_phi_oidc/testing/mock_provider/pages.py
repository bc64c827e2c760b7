"""The HTML pages: no scripts or external resources, usable at a width of 320 px, with a light and a
dark theme.
"""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from urllib.parse import urlencode, urlsplit

from .messages import NO_STORE_HEADERS, Reply
from .registrations import Account, Client

STYLESHEET = """
:root { color-scheme: light dark; --bg: #eef2f3; --card: #fff; --ink: #16262b; --soft: #4a5d63; --line: #75888e;
  --accent: #0b5c6b; --on-accent: #fff; --warn-bg: #fff3d6; --warn-ink: #553900; --bad-bg: #fde8e6; --bad-ink: #8a1c12 }
@media (prefers-color-scheme: dark) { :root { --bg: #0f1719; --card: #182427; --ink: #e6eef0;
  --soft: #a9bcc2; --line: #7d9299; --accent: #7fd0de; --on-accent: #05262d; --warn-bg: #3a2d0c; --warn-ink: #ffe1a1;
  --bad-bg: #40150f; --bad-ink: #ffc9c2 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--bg); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif }
main { max-width: 27rem; margin: 0 auto; padding: clamp(1rem, 5vw, 3rem) 1rem }
.warn { margin: 0 0 1rem; padding: .6rem .8rem; border-radius: .5rem; background: var(--warn-bg);
  color: var(--warn-ink); font-size: .9rem }
.card { padding: clamp(1rem, 5vw, 2rem); border-radius: .9rem; background: var(--card);
  box-shadow: 0 1px 2px #0003, 0 8px 28px #0000001a }
h1 { margin: 0 0 .25rem; font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere }
h2 { margin: 1.75rem 0 .5rem; font-size: 1rem }
p { margin: 0 0 1rem; overflow-wrap: anywhere }
.soft { color: var(--soft) }
.asked { margin: 1rem 0 0 }
.bad { padding: .6rem .8rem; border-radius: .5rem; background: var(--bad-bg); color: var(--bad-ink) }
label { display: block; margin: 1rem 0 .3rem; font-weight: 600 }
input { width: 100%; padding: .65rem .75rem; border: 1px solid var(--line); border-radius: .5rem;
  background: var(--card); color: inherit; font: inherit }
button { width: 100%; margin-top: 1.25rem; padding: .75rem 1rem; border: 1px solid var(--accent); border-radius: .5rem;
  background: var(--accent); color: var(--on-accent); font: inherit; font-weight: 600; cursor: pointer }
button.plain { margin-top: .6rem; background: transparent; color: var(--accent) }
:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem; margin: 0 }
dd { margin: 0; overflow-wrap: anywhere }
code { font: .95em ui-monospace, monospace }
"""  # noqa: E501

_STYLESHEET_HASH = base64.b64encode(hashlib.sha256(STYLESHEET.encode()).digest()).decode("ascii")
_SCOPE_DESCRIPTIONS = {
    "profile": "name, date of birth and other details of your profile",
    "email": "e-mail address",
    "address": "postal address",
    "phone": "phone number",
    "offline_access": "access while you are away",
}


def render_login_page(
    *,
    client: Client,
    accounts: Iterable[Account],
    parameters: Mapping[str, str],
    redirect_uri: str,
    scope: Iterable[str],
    claims: Iterable[str],
    csrf: str,
    username: str,
    error_message: str,
) -> Reply:
    """Return the login page. Its form posts to the authorization endpoint, with the client's
    request in the query.
    """
    name = escape(client.client_name or client.client_id)
    scope_text = ", ".join(
        [*(_SCOPE_DESCRIPTIONS[value] for value in scope if value in _SCOPE_DESCRIPTIONS), *claims]
    )
    account_list = "".join(
        f"<dt><code>{escape(account.username)}</code></dt><dd><code>{escape(account.password)}</code></dd>"
        for account in accounts
    )

    if error_message:
        invalid = ' aria-invalid="true" aria-describedby="fault"'
    else:
        invalid = ""

    body = f"""
<h1>Sign in</h1>
<p class="soft">to continue to <strong>{name}</strong></p>
{f'<p class="bad" role="alert" id="fault">{escape(error_message)}</p>' if error_message else ""}
<form method="post" action="{_render_form_action("/authorize", parameters)}">
<input type="hidden" name="csrf" value="{escape(csrf)}">
<label for="username">User name</label>
<input id="username" name="username" value="{escape(username)}" autocomplete="username" autocapitalize="none"
 spellcheck="false" required{invalid}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required{invalid}>
{f'<p class="soft asked">By signing in, you allow {name} to see: {escape(scope_text)}.</p>' if scope_text else ""}
<button name="decision" value="sign-in">Sign in</button>
<button class="plain" name="decision" value="cancel" formnovalidate>Cancel</button>
</form>
<h2>Demo accounts and passwords</h2>
<dl>{account_list}</dl>"""  # noqa: E501
    # Chromium applies form-action to the redirects after the form, so the client's origin must be
    # listed.
    target = urlsplit(redirect_uri)
    form_action = f"'self' {target.scheme}://{target.netloc}"
    return _render_page(
        "Sign in", body, form_action=form_action, status=403 if error_message else 200
    )


def render_sign_out_page(*, parameters: Mapping[str, str], csrf: str) -> Reply:
    """Return the page that asks the user to confirm the sign-out."""
    body = f"""
<h1>Sign out?</h1>
<p>This ends your session at the demo identity provider.</p>
<form method="post" action="{_render_form_action("/end-session", parameters)}">
<input type="hidden" name="csrf" value="{escape(csrf)}">
<button name="decision" value="sign-out">Sign out</button>
</form>"""
    target = urlsplit(parameters.get("post_logout_redirect_uri", ""))
    if target.netloc:
        origin = f" {target.scheme}://{target.netloc}"
    else:
        origin = ""

    return _render_page("Sign out", body, form_action=f"'self'{origin}")


def render_signed_out_page() -> Reply:
    """Return the last page of a logout without a redirect."""
    return _render_page(
        "Signed out",
        "<h1>Signed out</h1><p>Your session at the demo identity provider has ended.</p>",
    )


def render_error_page(message: str, *, status: int) -> Reply:
    """Return a page for an error that must not be sent to the client."""
    body = f'<h1>This request can’t be processed</h1><p role="alert">{escape(message)}</p>'
    return _render_page("Error", body, status=status)


def _render_form_action(path: str, parameters: Mapping[str, str]) -> str:
    return escape(f"{path}?{urlencode(parameters)}")


def _render_page(title: str, body: str, *, form_action: str = "'none'", status: int = 200) -> Reply:
    page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · Demo identity provider</title>
<style>{STYLESHEET}</style>
</head>
<body>
<main>
<p class="warn"><strong>Not for production.</strong> A demo identity provider with invented accounts. All data is
lost when it stops.</p>
<div class="card">{body}
</div>
</main>
</body>
</html>
"""  # noqa: E501
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLESHEET_HASH}'; form-action {form_action}; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    headers = {
        **NO_STORE_HEADERS,
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
    return Reply(status=status, headers=headers, body=page.encode())

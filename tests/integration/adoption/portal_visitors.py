"""Users with browsers: they open the start page, and sign in where the portal leads them."""

import re
from html import unescape

from django_phi_oidc.testing.mock_provider import sign_in
from tests.integration.adoption.provider_process import password_of
from tests.support.http_browser import Browser, PortalResponse

ACCOUNT = "account="
"""The start page shows this, and the primary key of the signed-in account."""
MAX_STEPS = 12
ALLAUTH_LOGIN = re.compile(r'href="(/accounts/oidc/[^"]+)"')
"""The link to the provider in allauth's page."""


def open_portal(browser: Browser, person: str) -> str:
    """Open the start page as this person, sign in if the portal requires it, and return the primary key it shows.

    Raises: AssertionError if the page is not reached.
    """
    url = "/"
    page = browser.get(url)
    for _ in range(MAX_STEPS):
        if page.status == 302:
            url = page.location
            if is_elsewhere(browser, url):
                url = sign_in(url, username=person, password=password_of(person), cookies=browser.provider_cookies)
            page = browser.get(url)
        elif page.status == 200 and not find_account(page):
            # Pages of allauth: the list of providers, and the one that asks to continue.
            link = ALLAUTH_LOGIN.search(page.body)
            url = unescape(link[1]) if link else url
            page = browser.get(url) if link else browser.post(url)
        else:
            break
    account = find_account(page)
    assert account, f"{person} was shown {page.status} at {url}: {page.body[:800]}"
    return account


def find_account(page: PortalResponse) -> str:
    """Return the primary key that the start page shows; empty if it is another page."""
    return page.body.partition(ACCOUNT)[2] if page.status == 200 else ""


def is_elsewhere(browser: Browser, url: str) -> bool:
    return url.startswith("http") and not url.startswith(f"{browser.base_url}/")

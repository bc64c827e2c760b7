"""Attack cases for third-party initiated login: other sites choose the target, the issuer, or frame
the page.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from django.apps import apps
from django.test import override_settings
from django.urls import reverse

from .browser import Browser, PortalResponse, find_consent_url
from .browser_attacks import ATTACKER_HOST, EXTERNAL_URLS
from .environment import PORTAL_URL, WHOAMI_PATH, AttackEnvironment, get_phi_oidc_setting
from .logout_attacks import create_signed_in_browser
from .provider_attacks import AttackFunction

OTHER_ISSUER = "https://other.example"
_OTHER_DECLARATION = {
    "issuer": OTHER_ISSUER,
    "client_id": "portal",
    "client_secret": "of the attack kit",
}


@contextmanager
def _third_party_login_allowed(
    environment: AttackEnvironment, *, is_allowed: bool = True, **providers: Any
) -> Iterator[None]:
    """Allow third-party login with the provider. providers: others, which are declared and not
    allowed.
    """
    if not apps.is_installed("django_phi_oidc.contrib.third_party_login"):
        environment.skip_attack("contrib.third_party_login is not installed")
    with environment.override_declaration():
        declared = get_phi_oidc_setting()
        name = environment.portal.name
        own = {**declared["PROVIDERS"][name], "third_party_login": is_allowed}
        with override_settings(
            PHI_OIDC={**declared, "PROVIDERS": {**declared["PROVIDERS"], name: own, **providers}}
        ):
            yield


def forge_target(environment: AttackEnvironment) -> None:
    """Open redirect: another site names an external `target_link_uri`, in a link and in a form."""
    with _third_party_login_allowed(environment):
        issuer = environment.op.issuer
        for method in ("get", "post"):
            browser = environment.create_browser()
            target = f"{PORTAL_URL}{WHOAMI_PATH}"
            page = _sign_in(
                environment,
                browser,
                _initiate(browser, method, iss=[issuer], target_link_uri=[target]),
            )
            environment.assert_accepted(browser, page)
            environment.assert_control(
                page.location == target, "the sign-in does not lead to the target"
            )
            for url in EXTERNAL_URLS:
                browser = environment.create_browser()
                page = _initiate(browser, method, iss=[issuer], target_link_uri=[url])
                environment.assert_control(
                    page.status in (302, 303), f"the status is {page.status}"
                )
                for location in (page.location, _sign_in(environment, browser, page).location):
                    is_local = environment.is_portal_url(location)
                    if not is_local:
                        environment.report_fault(f"the sign-in leads to {url!r}")


def forge_issuer(environment: AttackEnvironment) -> None:
    """Another site names an issuer that is unknown, similar, or declared but not allowed; no
    issuer, or two.
    """
    with _third_party_login_allowed(environment, attack_other=_OTHER_DECLARATION):
        issuer = environment.op.issuer
        cases: Sequence[tuple[list[str], str]] = (
            ([f"https://{ATTACKER_HOST}"], "iss_mismatch"),
            ([f"{issuer}/"], "iss_mismatch"),
            ([issuer.upper()], "iss_mismatch"),
            ([OTHER_ISSUER], "iss_mismatch"),
            ([], "iss_missing"),
            ([issuer, f"https://{ATTACKER_HOST}"], "parameter_repeated"),
        )
        for issuers, code in cases:
            browser = environment.create_browser()
            environment.assert_refused(browser, _initiate(browser, "get", iss=issuers), code)
        page = _initiate(environment.create_browser(), "get", iss=[issuer])
        environment.assert_control(page.status in (302, 303), "the allowed issuer is refused")
    with _third_party_login_allowed(environment, is_allowed=False):
        browser = environment.create_browser()
        environment.assert_refused(browser, _initiate(browser, "get", iss=[issuer]), "iss_mismatch")


def frame_consent(environment: AttackEnvironment) -> None:
    """Another site sends a signed-in user's browser to the sign-in, and frames the page that asks
    for consent.
    """
    with _third_party_login_allowed(environment):
        browser = create_signed_in_browser(environment)
        user = environment.find_signed_in_user(browser)
        session_key = browser.cookies[browser.session_cookie_name]
        browser.headers = {
            "origin": f"https://{ATTACKER_HOST}",
            "referer": f"https://{ATTACKER_HOST}/",
        }
        for method in ("get", "post"):
            start = _initiate(browser, method, iss=[environment.op.issuer])
            page = browser.get(start.location)
            if not environment.is_portal_url(page.location):
                browser.get(
                    environment.op.authorize(
                        page.location, "amina", cookies=browser.provider_cookies
                    )
                )
            is_same = browser.cookies.get(browser.session_cookie_name) == session_key
            is_same = is_same and environment.find_signed_in_user(browser) == user
            if not is_same:
                environment.report_fault("another site replaces the session")
            environment.assert_control(find_consent_url(page), "no page asks for consent")
            refusal = _initiate(browser, method, iss=[OTHER_ISSUER])
            for shown in (start, page, refusal):
                if not _forbids_frames(shown):
                    environment.report_fault("another site can frame the page")


def _initiate(browser: Browser, method: str, **parameters: list[str]) -> PortalResponse:
    """Send the browser to the portal, by a link or a form of another site."""
    url = reverse("oidc_initiate_login")
    query = urlencode(parameters, doseq=True)
    if method == "get":
        return browser.get(f"{url}?{query}")
    fields = {}
    for name, values in parameters.items():
        fields[name] = values[0]
    return browser.post(url, **{"csrfmiddlewaretoken": "", **fields})


def _sign_in(
    environment: AttackEnvironment, browser: Browser, page: PortalResponse
) -> PortalResponse:
    """Follow the redirects and return the response of the callback."""
    start = browser.get(page.location)
    return browser.get(
        environment.op.authorize(start.location, "amina", cookies=browser.provider_cookies)
    )


def _forbids_frames(page: PortalResponse) -> bool:
    """Return whether the page can't be in a frame of another site. Spec: RFC 7034; CSP 3 6.4.2."""
    policy = page.join_header_values("Content-Security-Policy")
    directives = []
    for directive in policy.split(";"):
        directives.append(directive.split())
    ancestors = []
    for name, *sources in filter(None, directives):
        if name.lower() == "frame-ancestors":
            ancestors.append(sources)
    if ancestors:
        return all(_excludes_other_sites(sources) for sources in ancestors)
    return page.join_header_values("X-Frame-Options").upper() in ("DENY", "SAMEORIGIN")


def _excludes_other_sites(sources: Sequence[str]) -> bool:
    return sources in (["'none'"], ["'self'"])


INITIATED_LOGIN_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("forged_initiation", "target"): forge_target,
    ("forged_initiation", "issuer"): forge_issuer,
    ("forged_initiation", "frame"): frame_consent,
}

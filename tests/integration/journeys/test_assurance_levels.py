"""Levels of assurance besides `acr_values`: vectors of trust, accepted values, methods. Spec: RFC 8485, RFC 8176."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.attack_cases import OMITTED
from tests.integration.journeys.guarded_urls import RAN, STRONG
from tests.integration.journeys.test_step_up import query_of, step_up, to_provider
from tests.support.http_browser import Browser
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(**EVERYTHING)]
MARK = "https://op.example/trust-mark"
P5, P9 = "P5.Cp.Cd", "P9.Cp.Cd"
Declare = Callable[..., None]


@pytest.fixture
def declare(settings: Any, op: DemoProvider) -> Declare:
    """declare(vtr=…) changes the provider's declaration."""

    def declare(**options: Any) -> None:
        provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], **options}
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS={"default": provider})

    return declare


@pytest.fixture(autouse=True)
def _levels(portal: str, op: DemoProvider, settings: Any) -> Iterator[None]:
    """Amina's identity is proofed to P5, and to P9 if the request asks for it."""
    settings.ROOT_URLCONF = "tests.integration.journeys.guarded_urls"
    RAN.clear()
    accounts = dict(op.state.accounts)
    op.state.accounts["amina"] = replace(accounts["amina"], vot=P5, step_up_vot=P9, amr=("pwd", "mfa"))
    op.state.trust_mark = MARK
    yield
    op.state.accounts.update(accounts)


def set_claims(**claims: Any) -> Callable[[str, MutableExchange], None]:
    def hook(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            for name, value in claims.items():
                exchange.claims.pop(name, None)
                exchange.claims |= {} if value is OMITTED else {name: value}

    return hook


def details(action: str) -> list[dict[str, Any]]:
    return [json.loads(event.detail) for event in events(action=action)]


def reasons() -> list[str]:
    return [event.reason for event in events(action="login.refused")]


def test_requested_vectors_are_sent_and_the_vector_is_recorded(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(vtr=[P9, "P9.Cm"], vtm=MARK)
    leaving = browser.start_sign_in()
    assert json.loads(query_of(leaving)["vtr"]) == [P9, "P9.Cm"]
    assert browser.get(op.authorize(leaving.location, "amina")).status == 302
    (detail,) = details("login.succeeded")
    assert (detail["vot"], detail["amr"]) == (P9, ["pwd", "mfa"])
    assert "vot" not in detail["claims"]
    assert browser.get("/proofed/").body == "proofed ran"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"vot": P5}, "vot_insufficient"),
        ({"vot": OMITTED}, "vot_insufficient"),
        ({"vtm": "https://evil.example/trust-mark"}, "vtm_invalid"),
        ({"vtm": OMITTED}, "vtm_invalid"),
    ],
)
def test_sign_in_without_the_vector_under_the_trust_mark_is_refused(
    op: DemoProvider, browser: Browser, declare: Declare, claims: dict[str, Any], code: str
) -> None:
    declare(vtr=[P9], vtm=MARK)
    op.mutate = set_claims(**claims)
    page = browser.sign_in(op)
    assert (page.status, reasons(), browser.user(), op.active_tokens) == (403, [code], "", [])
    assert ("We need more proof that it is you" in page.body) is (code == "vot_insufficient")


def test_page_that_requires_a_vector_steps_up_with_the_declared_vectors_that_satisfy_it(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(vtr=[P5, P9], vtm=MARK)
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    leaving = to_provider(browser, "/proofed/")
    assert (json.loads(query_of(leaving)["vtr"]), query_of(leaving)["prompt"]) == ([P9], "login")
    callback = browser.get(op.authorize(leaving.location, "amina", cookies=browser.provider_cookies))
    assert browser.get(callback.location).body == "proofed ran"
    assert [detail["vot"] for detail in (*details("login.succeeded"), *details("session.renewed"))] == [P5, P9]
    assert [event.reason for event in events(action="access.denied")] == ["vot_insufficient"]


def test_step_up_that_does_not_reach_the_vector_leaves_the_session_as_it_was(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(vtm=MARK)
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    op.mutate = set_claims(vot="P9.Cd")
    again = step_up(browser, op, "/proofed/")
    assert json.loads(query_of(again)["vtr"]) == ["P9.Cp", "P9.Cm"], "the page's own, as none is declared"
    page = browser.get(op.authorize(again.location, "amina", cookies=browser.provider_cookies))
    assert (page.status, reasons()) == (403, ["vot_insufficient"] * 2)
    assert "We need more proof that it is you" in page.body
    assert (OIDCSession.objects.get().ended_at, RAN, details("session.renewed")) == (None, [], [])


def test_step_up_keeps_the_components_that_each_sign_in_needs(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    """No declared vector satisfies the page, whose vectors say nothing about categories that each sign-in needs."""
    declare(vtr=["P5.Cp.Ax"], vtm=MARK)
    op.mutate = set_claims(vot="P5.Cp.Ax")
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    op.mutate = set_claims(vot="P9.Cm")
    again = step_up(browser, op, "/proofed/")
    assert json.loads(query_of(again)["vtr"]) == ["P9.Cp.Ax", "P9.Cm.Ax"]
    assert (reasons(), RAN) == (["vot_insufficient"], [])
    op.mutate = set_claims(vot="P9.Cm.Ax")
    callback = browser.get(op.authorize(again.location, "amina", cookies=browser.provider_cookies))
    assert browser.get(callback.location).body == "proofed ran"


def test_step_up_requests_what_the_answer_does_not_name(op: DemoProvider, browser: Browser, declare: Declare) -> None:
    """As at login.gov, whose acr names the proofing of the identity, and not the factors that were requested."""
    weak = "urn:example:loa:1"
    declare(acr_values=[weak, "urn:two-factors"], acr_accepted=[weak, STRONG])
    op.mutate = set_claims(acr=weak)
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    assert query_of(to_provider(browser, "/strong/"))["acr_values"] == f"{STRONG} urn:two-factors"
    declare(acr_values=[weak, STRONG], acr_accepted=[])
    assert query_of(to_provider(browser, "/strong/"))["acr_values"] == STRONG


def test_vector_of_an_unknown_trust_mark_meets_no_page(op: DemoProvider, browser: Browser, declare: Declare) -> None:
    op.state.accounts["amina"] = replace(op.state.accounts["amina"], vot=P9)
    assert browser.sign_in(op).status == 302
    assert "vot" not in details("login.succeeded")[0]
    browser.headers["Accept"] = "text/html"
    assert step_up(browser, op, "/proofed/").status == 403
    assert (reasons(), RAN) == (["vtm_invalid"], [])


def test_answer_that_is_accepted_may_differ_from_what_was_requested(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    """As login.gov answers `…-preferred`."""
    declare(acr_values=["urn:preferred"], acr_accepted=["urn:answer"])
    op.mutate = set_claims(acr="urn:answer")
    leaving = browser.start_sign_in()
    assert query_of(leaving)["acr_values"] == "urn:preferred"
    assert browser.get(op.authorize(leaving.location, "amina")).status == 302
    op.mutate = set_claims(acr="urn:preferred")
    assert Browser(browser.base_url).sign_in(op).status == 403
    assert reasons() == ["acr_insufficient"]


@pytest.mark.parametrize(("amr", "status"), [(["hwk"], 302), (["pwd", "mfa"], 302), (["pwd"], 403), (OMITTED, 403)])
def test_sign_in_needs_one_of_the_required_methods(
    op: DemoProvider, browser: Browser, declare: Declare, amr: Any, status: int
) -> None:
    declare(amr_required=["mfa", "hwk"])
    op.mutate = set_claims(amr=amr)
    page = browser.sign_in(op)
    assert (page.status, reasons()) == (status, ["amr_insufficient"] if status == 403 else [])
    if status == 403:
        assert "We need more proof that it is you" in page.body


def test_step_up_keeps_the_methods_that_each_sign_in_needs(
    op: DemoProvider, browser: Browser, declare: Declare
) -> None:
    declare(amr_required=["mfa"])
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    op.mutate = set_claims(amr=["pwd"])
    assert step_up(browser, op, "/strong/").location.startswith(op.issuer), "the sign-in is requested again"
    assert (reasons(), RAN) == (["amr_insufficient"], [])

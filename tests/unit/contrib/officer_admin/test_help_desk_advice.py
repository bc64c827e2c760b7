"""What the help desk reads for each refusal."""

import re
from typing import Any

import pytest

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.officer_admin.help_desk_advice import (
    ACTIVATION_ADVICE,
    ADVICE_BY_CODE,
    ADVICE_BY_PAGE,
    get_advice,
)
from django_phi_oidc.login.failures import TEMPLATES_BY_PAGE
from tests.docs.test_docs import in_backticks
from tests.docs.test_docs import page as documented


def advise(action: str, reason: str, detail: str = "{}") -> str:
    return get_advice(AuditEvent(action=action, reason=reason, detail=detail))


@pytest.mark.parametrize(
    ("reason", "detail", "page"),
    [
        ("state_unknown", "{}", "restart"),
        ("acr_insufficient", "{}", "stronger"),
        ("claim_missing", "{}", "not_shared"),
        ("not_provisioned", "{}", "no_account"),
        ("subject_changed", "{}", "other_person"),
        ("signature_invalid", "{}", "failed"),
        ("transport_timeout", "{}", "unavailable"),
        ("trust_chain_invalid", "{}", "unavailable"),
        ("internal_error", "{}", "failed"),
        ("token_error", '{"provider_status":400}', "failed"),
        ("token_error", '{"provider_status":503}', "unavailable"),
        ("token_error", '{"provider_status":"503"}', "failed"),
        ("provider_error", '{"provider_error":"access_denied"}', "declined"),
        ("provider_error", '{"provider_error":"server_error"}', "unavailable"),
        ("provider_error", '{"provider_error":"other"}', "failed"),
        ("provider_error", "no JSON", "failed"),
    ],
)
def test_advice_fits_the_page_that_the_caller_sees(reason: str, detail: str, page: Any) -> None:
    assert advise("login.refused", reason, detail) == ADVICE_BY_PAGE[page]


@pytest.mark.parametrize("code", sorted(ADVICE_BY_CODE))
def test_some_codes_have_their_own_advice(code: str) -> None:
    assert advise("login.refused", code) == ADVICE_BY_CODE[code]


@pytest.mark.parametrize("reason", sorted(ACTIVATION_ADVICE))
def test_refused_activation_code_has_advice(reason: str) -> None:
    assert advise("activation.refused", reason) == ACTIVATION_ADVICE[reason]


def test_each_page_has_advice() -> None:
    assert ADVICE_BY_PAGE.keys() == TEMPLATES_BY_PAGE.keys()


def test_refused_access_and_unknown_reasons_have_advice() -> None:
    assert "ask an administrator" in advise("access.denied", "permission_missing")
    assert advise("activation.refused", "odd").startswith("The caller cannot correct this.")


def test_advice_is_in_the_manual() -> None:
    text = documented("how-to/help-desk.md")
    assert [advice for advice in ADVICE_BY_PAGE.values() if f"| {advice} |" not in text] == []
    table = documented("how-to/activation-codes.md").partition("## What is refused")[2].partition("\n\nA code")[0]
    first_cells = re.findall(r"^\| (`[^|]+) \|", table, re.M)
    assert in_backticks(" ".join(first_cells)) == ACTIVATION_ADVICE.keys()

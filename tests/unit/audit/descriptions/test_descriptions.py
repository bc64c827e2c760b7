"""Each code that an event may contain has words."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from django.utils.translation import gettext_lazy

import django_phi_oidc
from django_phi_oidc.access import policy
from django_phi_oidc.audit import descriptions
from django_phi_oidc.audit.actions import DETAIL_KEYS, Action
from django_phi_oidc.audit.descriptions.action_labels import ACTION_EXPLANATIONS, ACTION_LABELS
from django_phi_oidc.audit.descriptions.alert_labels import ALERT_EXPLANATIONS, ALERT_LABELS
from django_phi_oidc.audit.descriptions.detail_labels import DETAIL_LABELS, DETAIL_VALUE_LABELS, OUTCOME_LABELS
from django_phi_oidc.audit.descriptions.reason_labels import PROVIDER_ERROR_LABELS, REASON_LABELS
from django_phi_oidc.audit.events import OUTCOMES, SANITIZED_KEY, SIGNED_LATE_KEY, register_actions
from django_phi_oidc.contrib.emergency.models import CloseReason
from django_phi_oidc.contrib.individual_rights.officer_pages import EXPORT_REASONS
from django_phi_oidc.contrib.monitoring.provider_drift import KEYS_CHANGED, METADATA_CHANGED
from django_phi_oidc.contrib.monitoring.rules import get_builtin_rules
from django_phi_oidc.contrib.officer_admin.forms import REVEAL_REASONS
from django_phi_oidc.errors import Code
from django_phi_oidc.oidc.error_codes import OTHER_ERROR, REGISTERED_ERROR_CODES
from django_phi_oidc.sessions.models import EndReason

PACKAGE = Path(django_phi_oidc.__file__).parent
REFUSALS = {"AccessTokenInvalid", "DPoPProofInvalid", "LogoutTokenInvalid", "ActivationRefused", "EmergencyRefused"}
"""Errors whose first argument is the reason, or the rule, of an event."""
POLICY_CODES = {value for name, value in vars(policy).items() if name.isupper() and isinstance(value, str)}
ALERT_KINDS = {rule.kind for rule in get_builtin_rules()} | {KEYS_CHANGED, METADATA_CHANGED, "log_replaced"}
CODE_PATTERN = re.compile("[a-z]+(_[a-z0-9]+)*")


def list_reason_literals() -> Iterator[str]:
    """Yield the codes that the package's source passes as a reason or fault."""
    for path in PACKAGE.rglob("*.py"):
        if "testing" in path.parts or "known_providers" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            values = [keyword.value for keyword in node.keywords if keyword.arg in ("reason", "fault")]
            if isinstance(node.func, ast.Name) and node.func.id in REFUSALS:
                values += node.args[:1]
            for value in values:
                if isinstance(value, ast.Constant) and CODE_PATTERN.fullmatch(str(value.value)):
                    yield str(value.value)


LITERALS = set(list_reason_literals())
REASONS = {
    *map(str, Code),
    *EndReason.values,
    *CloseReason.values,
    *LITERALS,
    *(POLICY_CODES - {policy.PATIENT_REQUEST}),
    *(code for code, _label in (*REVEAL_REASONS, *EXPORT_REASONS)),
    *(
        "internal_error",
        "interrupted",
        "break_glass_refused",
        "unsupported_token_type",
        "invalid_client",
        "privileges_grown",
    ),
    *("guessing", "altered", "not_held", "scope_missing", "token_misplaced", "dpop_nonce_required"),
    *("permission_not_offered", "reason_missing", "duration_invalid", "too_many_unreviewed"),
    *("event_missing", "event_unreadable", "log_behind_sink", "log_forked", "redeemed", "revoked", "legal_hold"),
}


def test_source_passes_reasons_as_literals() -> None:
    assert {"reissued", "dpop_htu", "user_inactive", "file_unwritable", "cnf_mismatch"} <= LITERALS


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        pytest.param(ACTION_LABELS, set(Action), id="actions"),
        pytest.param(OUTCOME_LABELS, set(OUTCOMES), id="outcomes"),
        pytest.param(PROVIDER_ERROR_LABELS, {*REGISTERED_ERROR_CODES, OTHER_ERROR}, id="provider errors"),
        pytest.param(ALERT_LABELS, ALERT_KINDS, id="alerts"),
        pytest.param(
            DETAIL_LABELS,
            {SANITIZED_KEY, SIGNED_LATE_KEY, *(key for keys in DETAIL_KEYS.values() for key in keys)},
            id="details",
        ),
        pytest.param(REASON_LABELS, REASONS | {*REGISTERED_ERROR_CODES, OTHER_ERROR}, id="reasons"),
    ],
)
def test_each_code_has_a_label(labels: Mapping[str, str], codes: set[str]) -> None:
    assert codes - labels.keys() == set()
    assert [code for code, label in labels.items() if not label.strip() or label == code or label.endswith(".")] == []
    assert [code for code, label in labels.items() if "_" in label] == []


def test_no_label_is_for_a_code_that_does_not_exist() -> None:
    source = "\n".join(
        path.read_text("utf-8") for path in PACKAGE.rglob("*.py") if "descriptions" not in path.parent.name
    )
    words = set(re.findall(r"[a-z0-9_]+", source))
    tables = (
        *(OUTCOME_LABELS, ALERT_LABELS, DETAIL_LABELS, REASON_LABELS, DETAIL_VALUE_LABELS),
        *DETAIL_VALUE_LABELS.values(),
    )
    unused = {code for labels in tables for code in labels} - words
    assert unused == set()
    assert ACTION_LABELS.keys() == set(Action)
    assert DETAIL_VALUE_LABELS.keys() <= DETAIL_LABELS.keys()


@pytest.mark.parametrize(
    ("explanations", "codes"), [(ACTION_EXPLANATIONS, set(Action)), (ALERT_EXPLANATIONS, ALERT_KINDS)]
)
def test_each_explanation_is_one_sentence(explanations: Mapping[str, str], codes: set[str]) -> None:
    assert explanations.keys() == codes
    for text in explanations.values():
        assert re.fullmatch(r"[A-Z][^.!?]+\.", text), text


def test_labels_of_reasons_begin_in_lower_case_unless_shown_alone() -> None:
    assert [label for label in REASON_LABELS.values() if not label[0].islower()] == []
    assert descriptions.get_reason_phrase("state_unknown") == "this browser has no pending sign-in"
    assert descriptions.get_reason_label("state_unknown") == "This browser has no pending sign-in"
    assert descriptions.get_reason_label("http_503") == "The server answered 503"
    assert descriptions.get_provider_error_label("server_error") == "An internal error of the provider"


def test_labels_of_known_codes() -> None:
    assert descriptions.get_action_label("login.refused") == "Sign-in refused"
    assert descriptions.get_action_explanation("alert.muted").startswith("Alerts of this kind")
    assert descriptions.get_outcome_label("failure") == "Refused or failed"
    assert descriptions.get_alert_label("replay") == "Repeated use of a token or sign-in"
    assert descriptions.get_alert_explanation("log_replaced").startswith("The audit log is not")
    assert descriptions.get_detail_label("provider_error") == "Error of the provider"
    assert descriptions.get_detail_value_label("stage", "callback") == "after the return from the provider"


def test_unknown_code_is_shown_as_it_is() -> None:
    assert descriptions.get_action_label("hospital.chart_scanned") == "hospital.chart_scanned"
    assert descriptions.get_outcome_label("odd") == "odd"
    assert descriptions.get_reason_label("odd_code") == "odd_code"
    assert descriptions.get_reason_label("http_odd") == "http_odd"
    assert descriptions.get_provider_error_label("odd_code") == "odd_code"
    assert descriptions.get_alert_label("our_rule") == "our_rule"
    assert descriptions.get_detail_label("pages") == "pages"
    assert descriptions.get_detail_value_label("page", "portal_chart") == "portal_chart"
    assert descriptions.get_detail_value_label("pages", "events") == "events"
    assert descriptions.get_reason_label("") == ""
    assert descriptions.get_action_explanation("hospital.chart_scanned") == ""
    assert descriptions.get_alert_explanation("our_rule") == ""


def test_action_of_the_host_project_has_the_label_that_it_registered() -> None:
    register_actions({"ward.bed_assigned": ()}, labels={"ward.bed_assigned": gettext_lazy("Bed assigned")})
    assert descriptions.get_action_label("ward.bed_assigned") == "Bed assigned"
    with pytest.raises(ValueError, match="labels"):
        register_actions({"ward.bed_released": ()}, labels={"ward.bed_assigned": "Bed assigned"})
    assert descriptions.get_action_label("ward.bed_released") == "ward.bed_released"

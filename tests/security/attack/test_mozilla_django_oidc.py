"""mozilla-django-oidc without this app fails the attacks that it is known to fail, and holds all others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.attack.example_project import ROOT, parse_json_lines
from tests.security.attack.test_attack_command import format_name

pytestmark = pytest.mark.sqlite
SIGNED_IN = "a user is signed in"
ERROR = "the status is 500"
TOKENS_VALID = "tokens are still valid"
# Release 5.0.2 does not check issuer and audience, and catches only DecodeError.
FAILS = {
    "iss_invalid": SIGNED_IN,
    "aud_invalid": SIGNED_IN,
    "aud_invalid (additional audience)": SIGNED_IN,
    "aud_invalid (empty)": SIGNED_IN,
    "azp_invalid": SIGNED_IN,
    "exp_invalid (an hour ago)": ERROR,
    "exp_invalid (missing)": SIGNED_IN,
    "token_malformed": ERROR,
    "token_error": ERROR,
    "token_error (200 with an error)": SIGNED_IN,
    "transport_redirect": ERROR,
    "sub_not_pairwise": SIGNED_IN,
    "at_hash_invalid": SIGNED_IN,
    "key_not_found (encryption key)": SIGNED_IN,
    "userinfo_sub_mismatch": SIGNED_IN,
    "iss_mismatch": SIGNED_IN,
    "iss_missing": SIGNED_IN,
    "user_inactive": "the account's session is still valid",
    "stolen_refresh_token": "access_token is still valid; refresh_token is still valid",
}
REFUSES = ("signature_invalid", "signature_invalid (foreign key)", "alg_not_allowed", "nonce_invalid")
"""No user is signed in, but the tokens stay valid, because it revokes none."""
HOLDS = {
    *("state_unknown", "state_unknown (of another browser)", "state_replayed"),
    *("transport_tls", "forged_next", "session_fixation"),
}


def test_mozilla_django_oidc_fails_the_known_attacks_and_holds_all_others(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    process = subprocess.run(
        [sys.executable, "-m", "tests.security.attack.mozilla_project", str(tmp_path)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert process.returncode == 0, process.stderr
    outcomes = {
        format_name(outcome): (outcome["result"], outcome["detail"]) for outcome in parse_json_lines(process.stdout)
    }
    assert {name for name, (result, _) in outcomes.items() if result == "held"} == HOLDS
    assert {name: outcomes[name][1].partition("; tokens")[0] for name in FAILS} == FAILS
    assert {name: outcomes[name][1] for name in REFUSES} == dict.fromkeys(REFUSES, TOKENS_VALID)

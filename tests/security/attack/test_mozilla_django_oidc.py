"""mozilla-django-oidc on its own, as it comes, falls for what it is known to fall for, and holds what it holds."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.security.attack.example_project import ROOT, objects
from tests.security.attack.test_attack_command import name

pytestmark = pytest.mark.sqlite
SIGNED_IN = "somebody is signed in"
ERROR = "the answer is 500"
ALIVE = "tokens are left alive"
# What is known of release 5.0.2: no issuer and no audience are checked, but DecodeError alone is caught, and so on.
FALLS_FOR = {
    "iss_invalid": SIGNED_IN,
    "aud_invalid": SIGNED_IN,
    "aud_invalid (one more)": SIGNED_IN,
    "aud_invalid (none)": SIGNED_IN,
    "azp_invalid": SIGNED_IN,
    "exp_invalid (an hour ago)": ERROR,
    "exp_invalid (absent)": SIGNED_IN,
    "token_malformed": ERROR,
    "token_error": ERROR,
    "token_error (200 with an error)": SIGNED_IN,
    "transport_redirect": ERROR,
    "sub_not_pairwise": SIGNED_IN,
    "at_hash_invalid": SIGNED_IN,
    "key_not_found (for encryption)": SIGNED_IN,
    "userinfo_sub_mismatch": SIGNED_IN,
    "iss_mismatch": SIGNED_IN,
    "iss_missing": SIGNED_IN,
    "user_inactive": "a session of the account lives",
    "stolen_refresh_token": "the access_token lives; the refresh_token lives",
}
REFUSES = ("signature_invalid", "signature_invalid (foreign key)", "alg_not_allowed", "nonce_invalid")
"""Nobody is signed in, and the tokens are left alive all the same: it revokes none."""
HOLDS = {
    *("state_unknown", "state_unknown (of another browser)", "state_replayed"),
    *("transport_tls", "forged_next", "session_fixation"),
}


def test_stock_project_falls_for_what_was_predicted_and_holds_the_rest(tmp_path: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    environ.pop("DJANGO_SETTINGS_MODULE", None)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.security.attack.mozilla_project", str(tmp_path)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr
    outcomes = {name(outcome): (outcome["result"], outcome["told"]) for outcome in objects(ran.stdout)}
    assert {each for each, (result, _) in outcomes.items() if result == "held"} == HOLDS
    assert {each: outcomes[each][1].partition("; tokens")[0] for each in FALLS_FOR} == FALLS_FOR
    assert {each: outcomes[each][1] for each in REFUSES} == dict.fromkeys(REFUSES, ALIVE)

"""Twenty questions that a reviewer asks, and the file that answers each.

They were written before they were put to readers who knew only the list of files. A move or a
rename that changes an answer is noticed here, and the questions are then to be put again.
"""

import ast
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


class FileQuestion(NamedTuple):
    question: str
    path: str
    """Below the package."""
    name: str
    """A class or function that the file defines and that answers the question."""


QUESTIONS = (
    FileQuestion(
        question="Where is at_hash of an ID Token checked?",
        path="oidc/id_token.py",
        name="validate_at_hash",
    ),
    FileQuestion(
        question="Where is the iss parameter of an authorization response checked (RFC 9207)?",
        path="oidc/authorization.py",
        name="validate_response_iss",
    ),
    FileQuestion(
        question="Where are signature and claims of a back-channel logout token verified?",
        path="oidc/logout_token.py",
        name="verify_logout_token",
    ),
    FileQuestion(
        question="Where is the view to which a provider posts its logout tokens?",
        path="sessions/backchannel_logout.py",
        name="BackchannelLogoutView",
    ),
    FileQuestion(
        question="Where is the JWT built with which the portal authenticates (private_key_jwt)?",
        path="oidc/client_auth.py",
        name="create_client_assertion",
    ),
    FileQuestion(
        question="Where are state and nonce kept between the redirect and the callback?",
        path="login/state_cookie.py",
        name="store_state",
    ),
    FileQuestion(
        question="Where is a person's existing account found by the verified e-mail address?",
        path="contrib/subject_links/email_match.py",
        name="EmailMatch",
    ),
    FileQuestion(
        question="Where is the rule that says when a session has been idle for too long?",
        path="sessions/timeouts.py",
        name="find_timeout_reason",
    ),
    FileQuestion(
        question="Where is the revocation of a token at the provider attempted again?",
        path="sessions/token_revocation.py",
        name="retry_due",
    ),
    FileQuestion(
        question="Where are the claims dropped that the project did not declare?",
        path="claims/minimization.py",
        name="minimize",
    ),
    FileQuestion(
        question="Where is a stored claim decrypted for a stated purpose?",
        path="claims/disclosure.py",
        name="reveal",
    ),
    FileQuestion(
        question="Where are claims erased whose time is over?",
        path="claims/retention.py",
        name="scrub_due_claims",
    ),
    FileQuestion(
        question="Where are a user's roles computed from the claims of a sign-in?",
        path="contrib/role_mapping/role_mapping.py",
        name="map_roles",
    ),
    FileQuestion(
        question="Where is it decided, and recorded, whether a user may open a guarded view?",
        path="access/decisions.py",
        name="authorize",
    ),
    FileQuestion(
        question="Where are triggers compared and repaired that forbid a change of an event?",
        path="audit/triggers.py",
        name="repair",
    ),
    FileQuestion(
        question="Where are committed events appended to the Merkle tree?",
        path="audit/log/sequencer.py",
        name="append_to_log",
    ),
    FileQuestion(
        question="Where is an inclusion proof of RFC 6962 verified?",
        path="audit/merkle/proof.py",
        name="verify_inclusion",
    ),
    FileQuestion(
        question="Where is an event written as an AuditEvent of HL7?",
        path="audit/formats/fhir.py",
        name="event_to_fhir",
    ),
    FileQuestion(
        question="Where is a filter of a SCIM request translated for the database?",
        path="contrib/scim/search_conditions.py",
        name="build_condition",
    ),
    FileQuestion(
        question="Where is the number of calls limited that wait for one slow provider?",
        path="provider/call_limit.py",
        name="CallLimit",
    ),
)


def test_there_are_twenty_questions_with_different_answers() -> None:
    assert len({question.path for question in QUESTIONS}) == 20


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.name)
def test_file_defines_the_answer(question: FileQuestion) -> None:
    source = (ROOT / "django_phi_oidc" / question.path).read_text(encoding="utf-8")

    definitions = {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)}

    assert question.name in definitions

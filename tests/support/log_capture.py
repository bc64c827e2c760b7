"""What the logs of a test said, and whether they said what nobody may read there."""

import re
from urllib.parse import quote, quote_plus

from django.conf import settings

from django_phi_oidc.testing.canary.log_capture import CapturedLog, capture_all_logs
from django_phi_oidc.testing.mock_provider import DemoProvider

__all__ = ["CapturedLog", "capture_all_logs", "leaks", "secrets_of"]

SECRET_PARAMETERS = ("code", "state", "nonce", "code_verifier", "client_assertion", "token", "refresh_token")


def secrets_of(op: DemoProvider) -> set[str]:
    """Return what passed between the portal, the provider and the browser, and is for no log."""
    found = {token.value for token in op.tokens} | set(op.state.grants)
    # Whole, and what they say.
    found |= {part for token in op.id_tokens for part in (token, token.split(".")[1])}
    found |= {name for grant in op.state.grants.values() for name in (grant.sub, grant.sid)}
    found |= {request.parameters.get(name, "") for request in op.requests for name in SECRET_PARAMETERS}
    for client in op.state.clients.values():
        found |= {client.client_secret, quote(client.client_secret, safe=""), quote_plus(client.client_secret)}
        found |= {op.get_subject(username, client.client_id) for username in op.state.accounts}
    # What a test made up in place of one, such as `code=a`, is in every other word.
    return {secret for secret in found if len(secret) >= 16} | claims_of(op)


def claims_of(op: DemoProvider) -> set[str]:
    """Return what the declared claims say of the provider's people, but what others say, too, such as a country."""
    declared = settings.PHI_OIDC["CLAIMS"]
    values = [
        value for account in op.state.accounts.values() for name, value in account.claims.items() if name in declared
    ]
    texts = {text for value in values for text in (value.values() if isinstance(value, dict) else [value])}
    return {text for text in texts if isinstance(text, str) and len(text) >= 10}


def leaks(text: str, ops: list[DemoProvider]) -> list[str]:
    """Return the secrets that text holds; a JWT begins with `eyJ`, and has a dot, as sealed text has not."""
    marks = {"1984-03-09", "Tulegatan", "s3cret &"}
    found = [secret for secret in marks.union(*map(secrets_of, ops)) if secret in text]
    return sorted(found + re.findall(r"eyJ[\w-]{10,}\.", text))

"""Search captured logs for secrets and claim values."""

import re
from urllib.parse import quote, quote_plus

from django.conf import settings

from django_phi_oidc.testing.canary.log_capture import CapturedLog, capture_all_logs
from django_phi_oidc.testing.mock_provider import DemoProvider

__all__ = ["CapturedLog", "capture_all_logs", "leaks", "secrets_of"]

SECRET_PARAMETERS = ("code", "state", "nonce", "code_verifier", "client_assertion", "token", "refresh_token")


def secrets_of(op: DemoProvider) -> set[str]:
    """Return the secrets exchanged between portal, provider and browser, which must not be logged."""
    secrets = {token.value for token in op.tokens} | set(op.state.grants)
    # The whole token and its payload.
    secrets |= {part for token in op.id_tokens for part in (token, token.split(".")[1])}
    secrets |= {name for grant in op.state.grants.values() for name in (grant.sub, grant.sid)}
    secrets |= {request.parameters.get(name, "") for request in op.requests for name in SECRET_PARAMETERS}
    for client in op.state.clients.values():
        secrets |= {client.client_secret, quote(client.client_secret, safe=""), quote_plus(client.client_secret)}
        secrets |= {op.get_subject(username, client.client_id) for username in op.state.accounts}
    # Values that a test invented, such as `code=a`, are too short to search for.
    return {secret for secret in secrets if len(secret) >= 16} | claims_of(op)


def claims_of(op: DemoProvider) -> set[str]:
    """Return the values of the declared claims, except short ones that occur elsewhere, such as a country."""
    declared = settings.PHI_OIDC["CLAIMS"]
    values = [
        value for account in op.state.accounts.values() for name, value in account.claims.items() if name in declared
    ]
    texts = {text for value in values for text in (value.values() if isinstance(value, dict) else [value])}
    return {text for text in texts if isinstance(text, str) and len(text) >= 10}


def leaks(text: str, ops: list[DemoProvider]) -> list[str]:
    """Return the secrets in text. A JWT starts with `eyJ` and contains a dot; encrypted columns have no dot."""
    markers = {"1984-03-09", "Tulegatan", "s3cret &"}
    found = [secret for secret in markers.union(*map(secrets_of, ops)) if secret in text]
    return sorted(found + re.findall(r"eyJ[\w-]{10,}\.", text))

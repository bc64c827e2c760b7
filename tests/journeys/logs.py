"""What the logs of a test said, and whether they said what nobody may read there."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, quote_plus

from django_phi_oidc.attack.op import DemoProvider

SECRET_PARAMETERS = ("code", "state", "nonce", "code_verifier", "client_assertion", "token", "refresh_token")


class Log(logging.Handler):
    """Keeps every line as a log file would have it, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def everything_logged() -> Iterator[Log]:
    """Keep whatever any logger says, from DEBUG up, in every thread of this process."""
    root, log = logging.getLogger(), Log()
    level = root.level
    root.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.setLevel(level)
        root.removeHandler(log)


def secrets_of(op: DemoProvider) -> set[str]:
    """Return what passed between the portal, the provider and the browser, and is for no log."""
    found = {token.value for token in op.tokens} | set(op.state.grants)
    found |= {request.parameters.get(name, "") for request in op.requests for name in SECRET_PARAMETERS}
    for client in op.state.clients.values():
        found |= {client.client_secret, quote(client.client_secret, safe=""), quote_plus(client.client_secret)}
        found |= {op.subject(username, client.client_id) for username in op.state.accounts}
    # What a test made up in place of one, such as `code=a`, is in every other word.
    return {secret for secret in found if len(secret) >= 16}


def leaks(text: str, ops: list[DemoProvider]) -> list[str]:
    """Return the secrets that text holds; `eyJ` is how the header of each JWT begins."""
    marks = {"eyJ", "1984-03-09", "Tulegatan", "s3cret &"}
    return sorted(secret for secret in marks.union(*map(secrets_of, ops)) if secret in text)

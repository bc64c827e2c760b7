"""Find tokens, codes and revealed claims where they must not be, and mask them in logs and reports.
No Django.

Detected: the shapes of tokens, by one regular expression, and the exact values registered for the
current request (`request_secrets`). NOT detected: encodings other than that of URLs, and opaque
tokens without a name next to them.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import unquote_plus

from .._internal.request_secrets import SecretLocation, current_secrets, has_revealed_claims

MASK = "•••"
TOKEN_PATTERN = re.compile(
    # A compact JWS or JWE, whose header is the base64url of '{"…'; a bearer token; an opaque token
    # after its name, with a digit, which words do not have. A match starts only at the beginning of
    # a run of characters, so a page that consists of such beginnings takes no longer than another.
    r"(?<![\w-])(eyJ[\w-]{10,}(?:\.[\w-]*){2,4})"
    r"|earer ((?=[\w.~+/=-]{0,64}\d)[\w.~+/=-]{16,})"
    r"|(?:(?<=access)|(?<=refresh)|(?<=logout)|(?<=\bid))_token[\"']?\s{0,9}[:=]\s{0,9}[\"']?"
    r"((?=[\w.~+/=-]{0,64}\d)[\w.~+/=-]{16,})"
)
_TOKEN_HINTS = ("eyJ", "earer ", "_token")
"""Matches of TOKEN_PATTERN start with one of these. Searching a page for them is a thousand times
faster.
"""
AUDIT_LOGGER_NAME = "phi_oidc.audit"
"""The logger of audit events."""
_UNAMBIGUOUS_LENGTH = 16
"""Values of this length do not occur by chance, even inside a longer word."""


def find_leaks(text: str, location: SecretLocation) -> list[str]:
    """Return the kinds of secrets in that part of a request or response that do not belong there,
    each once.
    """
    secrets = current_secrets()
    allowed = []
    for secret in secrets:
        if secret.location == location:
            allowed.append(secret.value)
    misplaced = []
    for secret in secrets:
        if secret.location not in (location, "anywhere"):
            misplaced.append(secret)
    kinds = []
    for secret in misplaced:
        if next(_iter_occurrences(secret.value, text), None) is not None:
            kinds.append(secret.kind)
    if any(not any(token in value for value in allowed) for token in _iter_tokens(text)):
        kinds.append("token")
    return list(dict.fromkeys(kinds))


def find_leaks_in_url(text: str, location: SecretLocation) -> list[str]:
    """Do the same for a text that may be URL-encoded."""
    return find_leaks(
        f"{text}\n{unquote_plus(text)}" if "%" in text or "+" in text else text, location
    )


def mask(text: str) -> str:
    """Return the text with each token, and each secret of the current request, masked."""
    for secret in sorted(current_secrets(), key=lambda secret: -len(secret.value)):
        for encoded in secret.encodings:
            text = _mask_value(encoded, text)
    if any(hint in text for hint in _TOKEN_HINTS):
        text = TOKEN_PATTERN.sub(
            lambda match: match[0].removesuffix(match[match.lastindex or 0]) + MASK, text
        )
    return text


class LeakageFilter(logging.Filter):
    """A filter for LOGGING that masks messages, tracebacks and texts in `extra`. It drops no
    record.

    Records of audit events are not changed: an event contains no secret, and its MAC covers every
    character.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Mask the record in place, and return True."""
        if record.name == AUDIT_LOGGER_NAME:
            return True
        for name in vars(record).keys() - _STANDARD_ATTRIBUTES:
            value = getattr(record, name)
            if isinstance(value, str) and (masked := mask(value)) != value:
                setattr(record, name, masked)
        try:
            message = record.getMessage()
            if record.exc_info and not record.exc_text:
                traceback = _FORMATTER.formatException(record.exc_info)
            else:
                traceback = ""
        except Exception:  # noqa: BLE001 -- a filter must not make the application's logging call fail
            # The record cannot be formatted: its arguments do not match, or `__str__` of one of
            # them fails. The handler reports that on stderr and needs them for it.
            return True
        if (masked := mask(message)) != message:
            record.msg = masked
            record.args = None
        if (masked := mask(traceback)) != traceback:
            # Formatters use this text instead of formatting the traceback.
            record.exc_text = masked
        return True


def before_send(event: Any, hint: Any) -> Any:
    """Return a Sentry event with every text masked, and without variables if a claim was revealed
    before.

    Texts are values, keys of dictionaries and members of sets. This does not need the middleware.
    For the options `before_send`, `before_send_transaction` and `before_breadcrumb`.
    """
    return _mask_event(event, without_variables=has_revealed_claims())


def _mask_event(part: Any, *, without_variables: bool) -> Any:
    mask_part = partial(_mask_event, without_variables=without_variables)
    if isinstance(part, str):
        return mask(part)
    if isinstance(part, Mapping):
        members = {}
        for key, value in part.items():
            if not (without_variables and key == "vars"):
                members[key] = value
        return {mask_part(key): mask_part(value) for key, value in members.items()}
    if isinstance(part, list | tuple | set | frozenset):
        items = [mask_part(item) for item in part]
        # A named tuple takes its members as arguments: a plain one is as good in an event.
        return next(
            (kind(items) for kind in (list, set, frozenset) if isinstance(part, kind)), tuple(items)
        )
    return part


def _iter_tokens(text: str) -> Iterator[str]:
    for hint in _TOKEN_HINTS:
        at = text.find(hint)
        while at >= 0:
            match = TOKEN_PATTERN.match(text, at)
            if match:
                yield match[match.lastindex or 0]
            at = text.find(hint, match.end() if match else at + len(hint))


def _iter_occurrences(value: str, text: str) -> Iterator[int]:
    """Yield the positions of the whole value. No regular expression: Python would cache it with the
    value.
    """
    at = text.find(value)
    while at >= 0:
        neighbors = text[at - 1 : at] + text[at + len(value) : at + len(value) + 1]
        if len(value) >= _UNAMBIGUOUS_LENGTH or not any(
            char.isalnum() or char == "_" for char in neighbors
        ):
            yield at
        at = text.find(value, at + len(value))


def _mask_value(value: str, text: str) -> str:
    parts = []
    end = 0
    for at in _iter_occurrences(value, text):
        parts += [text[end:at], MASK]
        end = at + len(value)
    return "".join([*parts, text[end:]])


_FORMATTER = logging.Formatter()
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) - {"exc_text", "stack_info"}
"""Attributes of every record, which are not `extra`; the message is masked as a whole."""

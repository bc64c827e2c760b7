"""Where a token, a code or what was revealed stands and should not: found in texts, and masked in logs and reports.

Seen are the shapes of tokens, by one regular expression, and the exact values that the request at hand knows
(`secrecy`). NOT seen are other encodings than the URL's, and the shapes of opaque tokens that nothing names. No Django.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from .._internal.request_secrets import SecretLocation, current_secrets

MASK = "•••"
TOKEN_PATTERN = re.compile(
    # A compact JWS or JWE, whose header is the base64url of '{"…'; a bearer's token; an opaque one after its name, with
    # a digit, which words have not. Each run of characters is read from its beginning alone: a page of nothing but
    # beginnings takes no more time than another.
    r"(?<![\w-])(eyJ[\w-]{10,}(?:\.[\w-]*){2,4})"
    r"|earer ((?=[\w.~+/=-]{0,64}\d)[\w.~+/=-]{16,})"
    r"|(?:(?<=access)|(?<=refresh)|(?<=logout)|(?<=\bid))_token[\"']?\s{0,9}[:=]\s{0,9}[\"']?"
    r"((?=[\w.~+/=-]{0,64}\d)[\w.~+/=-]{16,})"
)
_TOKEN_HINTS = ("eyJ", "earer ", "_token")
"""TOKEN begins with one of these. Looking for them in a page takes microseconds, where TOKEN takes a thousand."""
AUDIT_LOGGER_NAME = "phi_oidc.audit"
"""The log that tells of events."""
_UNAMBIGUOUS_LENGTH = 16
"""Characters from which a value stands nowhere by chance, not even in a longer word."""


def find_leaks(text: str, location: SecretLocation) -> list[str]:
    """Return the kinds of what stands in that part of a request or response and does not belong there, each once."""
    secrets = current_secrets()
    belonging = [secret.value for secret in secrets if secret.location == location]
    strange = [each for each in secrets if each.location not in (location, "anywhere")]
    kinds = [each.kind for each in strange if next(_iter_occurrences(each.value, text), None) is not None]
    if any(not any(token in value for value in belonging) for token in _iter_tokens(text)):
        kinds.append("token")
    return list(dict.fromkeys(kinds))


def find_leaks_in_url(text: str, location: SecretLocation) -> list[str]:
    """Return what `find` does, of a text in which a URL's encoding may hide it."""
    return find_leaks(f"{text}\n{unquote_plus(text)}" if "%" in text or "+" in text else text, location)


def mask(text: str) -> str:
    """Return the text with a mask for each token, and each value that the request at hand knows."""
    for secret in sorted(current_secrets(), key=lambda each: -len(each.value)):
        for spelt in secret.encodings:
            text = _mask_value(spelt, text)
    if any(hint in text for hint in _TOKEN_HINTS):
        text = TOKEN_PATTERN.sub(_mask_match, text)
    return text


class LeakageFilter(logging.Filter):
    """For LOGGING: masks in each line, in its traceback and in the texts given as `extra`. No line is lost.

    Lines of the trail stay as they are: an event holds no secret, and its MAC is over each of its characters.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, the record being masked; one with nothing to mask stays as it is."""
        if record.name == AUDIT_LOGGER_NAME:
            return True
        for name in vars(record).keys() - _STANDARD_ATTRIBUTES:
            value = getattr(record, name)
            if isinstance(value, str) and (masked := mask(value)) != value:
                setattr(record, name, masked)
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            # Arguments that do not fit: the handler tells of that, and so must get them. It shows them on stderr.
            return True
        if (masked := mask(message)) != message:
            record.msg, record.args = masked, None
        if record.exc_info and not record.exc_text:
            told = _FORMATTER.formatException(record.exc_info)
            if (masked := mask(told)) != told:
                # Where a formatter finds this, it writes no traceback of its own.
                record.exc_text = masked
        return True


def before_send(event: Any, hint: Any) -> Any:
    """For Sentry: return the event with every text in it masked, and no variables where something was revealed.

    It is good for `before_send`, `before_send_transaction` and `before_breadcrumb`.
    """
    return _mask_event(event, has_revealed_claims=any(secret.kind == "claim" for secret in current_secrets()))


def _mask_event(part: Any, *, has_revealed_claims: bool) -> Any:
    if isinstance(part, str):
        return mask(part)
    if isinstance(part, dict):
        return {
            key: _mask_event(value, has_revealed_claims=has_revealed_claims)
            for key, value in part.items()
            if not (has_revealed_claims and key == "vars")
        }
    if isinstance(part, list | tuple):
        return type(part)(_mask_event(item, has_revealed_claims=has_revealed_claims) for item in part)
    return part


def _iter_tokens(text: str) -> Iterator[str]:
    for hint in _TOKEN_HINTS:
        at = text.find(hint)
        while at >= 0:
            match = TOKEN_PATTERN.match(text, at)
            if match:
                yield match[match.lastindex or 0]
            at = text.find(hint, match.end() if match else at + len(hint))


def _mask_match(match: re.Match[str]) -> str:
    return match[0].removesuffix(match[match.lastindex or 0]) + MASK


def _iter_occurrences(value: str, text: str) -> Iterator[int]:
    """Yield where the value stands by itself. No regular expression: Python would keep it, and the value with it."""
    at = text.find(value)
    while at >= 0:
        around = text[at - 1 : at] + text[at + len(value) : at + len(value) + 1]
        if len(value) >= _UNAMBIGUOUS_LENGTH or not any(mark.isalnum() or mark == "_" for mark in around):
            yield at
        at = text.find(value, at + len(value))


def _mask_value(value: str, text: str) -> str:
    parts, done = [], 0
    for at in _iter_occurrences(value, text):
        parts += [text[done:at], MASK]
        done = at + len(value)
    return "".join([*parts, text[done:]])


_FORMATTER = logging.Formatter()
_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) - {"exc_text", "stack_info"}
"""What every record has, and is no text of anybody's; its message is masked as a whole."""

"""Where a token, a code or what was revealed stands and should not: found in texts, and masked in logs and reports.

Seen are the shapes of tokens, by one regular expression, and the exact values that the request at hand knows
(`secrecy`). NOT seen are other encodings than the URL's, and the shapes of opaque tokens that nothing names. No Django.
"""

import logging
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from ..secrecy import Place, at_hand

MASK = "•••"
TOKEN = re.compile(
    # A compact JWS or JWE, whose header is the base64url of '{"…'; a bearer's token; an opaque one after its name, with
    # a digit, which words have not. Each run of characters is read from its beginning alone: a page of nothing but
    # beginnings takes no more time than another.
    r"(?<![\w-])(eyJ[\w-]{10,}(?:\.[\w-]*){2,4})"
    r"|earer ((?=[\w.~+/=-]{0,64}\d)[\w.~+/=-]{16,})"
    r"|(?:(?<=access)|(?<=refresh)|(?<=logout)|(?<=\bid))_token[\"']?\s{0,9}[:=]\s{0,9}[\"']?"
    r"((?=[\w.~+/=-]{0,64}\d)[\w.~+/=-]{16,})"
)
_HINTS = ("eyJ", "earer ", "_token")
"""TOKEN begins with one of these. Looking for them in a page takes microseconds, where TOKEN takes a thousand."""
TRAIL = "phi_oidc.audit"
"""The log that tells of events."""
_LONG = 16
"""Characters from which a value stands nowhere by chance, not even in a longer word."""


def find(text: str, place: Place) -> list[str]:
    """Return the kinds of what stands in that part of a request or response and does not belong there, each once."""
    secrets = at_hand()
    belonging = [secret.value for secret in secrets if secret.place == place]
    strange = [each for each in secrets if each.place not in (place, "anywhere")]
    kinds = [each.kind for each in strange if next(_where(each.value, text), None) is not None]
    if any(not any(token in value for value in belonging) for token in _tokens(text)):
        kinds.append("token")
    return list(dict.fromkeys(kinds))


def find_in_url(text: str, place: Place) -> list[str]:
    """Return what `find` does, of a text in which a URL's encoding may hide it."""
    return find(f"{text}\n{unquote_plus(text)}" if "%" in text or "+" in text else text, place)


def mask(text: str) -> str:
    """Return the text with a mask for each token, and each value that the request at hand knows."""
    for secret in sorted(at_hand(), key=lambda each: -len(each.value)):
        for spelt in secret.spellings:
            text = _without(spelt, text)
    if any(hint in text for hint in _HINTS):
        text = TOKEN.sub(_masked, text)
    return text


class LeakageFilter(logging.Filter):
    """For LOGGING: masks in each line, in its traceback and in the texts given as `extra`. No line is lost.

    Lines of the trail stay as they are: an event holds no secret, and its MAC is over each of its characters.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True, the record being masked; one with nothing to mask stays as it is."""
        if record.name == TRAIL:
            return True
        for name in vars(record).keys() - _STANDARD:
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
    return _walk(event, revealed=any(secret.kind == "claim" for secret in at_hand()))


def _walk(part: Any, *, revealed: bool) -> Any:
    if isinstance(part, str):
        return mask(part)
    if isinstance(part, dict):
        return {key: _walk(value, revealed=revealed) for key, value in part.items() if not (revealed and key == "vars")}
    if isinstance(part, list | tuple):
        return type(part)(_walk(item, revealed=revealed) for item in part)
    return part


def _tokens(text: str) -> Iterator[str]:
    for hint in _HINTS:
        at = text.find(hint)
        while at >= 0:
            match = TOKEN.match(text, at)
            if match:
                yield match[match.lastindex or 0]
            at = text.find(hint, match.end() if match else at + len(hint))


def _masked(match: re.Match[str]) -> str:
    return match[0].removesuffix(match[match.lastindex or 0]) + MASK


def _where(value: str, text: str) -> Iterator[int]:
    """Yield where the value stands by itself. No regular expression: Python would keep it, and the value with it."""
    at = text.find(value)
    while at >= 0:
        around = text[at - 1 : at] + text[at + len(value) : at + len(value) + 1]
        if len(value) >= _LONG or not any(mark.isalnum() or mark == "_" for mark in around):
            yield at
        at = text.find(value, at + len(value))


def _without(value: str, text: str) -> str:
    parts, done = [], 0
    for at in _where(value, text):
        parts += [text[done:at], MASK]
        done = at + len(value)
    return "".join([*parts, text[done:]])


_FORMATTER = logging.Formatter()
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) - {"exc_text", "stack_info"}
"""What every record has, and is no text of anybody's; its message is masked as a whole."""

"""Words for the codes of the audit log, translated: labels for lists, and sentences of explanation.

The modules of this package have the tables; event_sentences describes an event. Codes stay in
events and exports.
"""

from collections.abc import Mapping

from django.utils.text import capfirst
from django.utils.translation import gettext

from ..events import find_registered_label
from ..purposes import PURPOSES
from .action_labels import ACTION_EXPLANATIONS, ACTION_LABELS
from .alert_labels import ALERT_EXPLANATIONS, ALERT_LABELS
from .detail_labels import DETAIL_LABELS, DETAIL_VALUE_LABELS, OUTCOME_LABELS
from .reason_labels import PROVIDER_ERROR_LABELS, REASON_LABELS

_HTTP_PREFIX = "http_"


def get_action_label(action: str) -> str:
    """Return what happened in a few words, for example “Sign-in refused”; the code itself if it is
    unknown.
    """
    return find_registered_label(action) or _translate(ACTION_LABELS, action)


def get_action_explanation(action: str) -> str:
    """Return one sentence of explanation; empty if the action is unknown."""
    return _translate(ACTION_EXPLANATIONS, action, default="")


def get_outcome_label(outcome: str) -> str:
    """Return the outcome in words; the code itself if it is unknown."""
    return _translate(OUTCOME_LABELS, outcome)


def get_reason_label(reason: str) -> str:
    """Return the code of a refusal or failure, or of a session's end, in words; the code itself if
    it is unknown.
    """
    phrase = get_reason_phrase(reason)
    if phrase == reason:
        return phrase
    return str(capfirst(phrase))


def get_reason_phrase(reason: str) -> str:
    """Return the same as get_reason_label, but as it stands within a sentence."""
    if reason.startswith(_HTTP_PREFIX) and reason.removeprefix(_HTTP_PREFIX).isdecimal():
        return gettext("the server answered %(status)s") % {
            "status": reason.removeprefix(_HTTP_PREFIX)
        }
    return _translate(REASON_LABELS, reason)


def get_provider_error_label(error: str) -> str:
    """Return the error code of a provider in words; the code itself if it is unknown."""
    label = _translate(PROVIDER_ERROR_LABELS, error)
    if label == error:
        return label
    return str(capfirst(label))


def get_purpose_label(code: str) -> str:
    """Return HL7's label of a purpose of use; the code itself if HL7 does not define it."""
    label = _translate(PURPOSES, code)
    if label == code:
        return label
    return str(capfirst(label))


def get_alert_label(kind: str) -> str:
    """Return the kind or rule of a security alert in words; the code itself if it is unknown."""
    return _translate(ALERT_LABELS, kind)


def get_alert_explanation(kind: str) -> str:
    """Return one sentence about a kind of security alerts; empty if it is unknown."""
    return _translate(ALERT_EXPLANATIONS, kind, default="")


def get_detail_label(key: str) -> str:
    """Return a key of `detail` in words; the key itself if it is unknown."""
    return _translate(DETAIL_LABELS, key)


def get_detail_value_label(key: str, value: str) -> str:
    """Return a value of `detail` in words; the value itself if it is no code of this package."""
    return _translate(DETAIL_VALUE_LABELS.get(key, {}), value)


def _translate(labels: Mapping[str, str], code: str, *, default: str | None = None) -> str:
    label = labels.get(code)
    if label:
        return gettext(label)
    return code if default is None else default

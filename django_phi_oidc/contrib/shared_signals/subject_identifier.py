"""The subject of a security event. Spec: RFC 9493; SSF 1.0 3 (complex subjects)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import SecurityEventTokenInvalid

_DRAFT_FORMATS = {"iss-sub": "iss_sub", "iss_sub": "iss_sub", "opaque": "opaque"}
"""`subject_type` of drafts before RFC 9493, and what it became."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSubject:
    """The person, the session at the provider, or both. All empty: nothing that this portal could
    recognize.
    """

    sub: str = field(default="", repr=False)
    """Of the person at the provider."""
    sid: str = field(default="", repr=False)
    """Of the session at the provider."""
    opaque_id: str = field(default="", repr=False)
    """Either of them: an opaque identifier does not say which."""

    @property
    def is_recognizable(self) -> bool:
        return bool(self.sub or self.sid or self.opaque_id)


def parse_subject_identifier(
    value: object, *, issuer: str, allow_draft: bool = False
) -> EventSubject:
    """Return the subject, which is a person or session of that issuer.

    An e-mail address, a phone number and other formats are valid, and recognize no one: another
    person may have got the address since. Members of a complex subject other than `user` and
    `session`, such as `device`, are ignored, so more sessions end than those of the device.
    allow_draft: accept `subject_type` instead of `format`.
    Raises: SecurityEventTokenInvalid (`sub_id_invalid`), also for a subject of another issuer: a
    transmitter speaks for its own people only. Spec: RFC 9493 3; SSF 1.0 3.2, 3.3.
    """
    subject = _get_object(value)
    subject_format = _get_format(subject, allow_draft=allow_draft)
    if subject_format != "complex":
        return _parse_simple(subject, subject_format, issuer=issuer)
    person = session = EventSubject()
    if "user" in subject:
        user = _get_object(subject["user"])
        person = _parse_simple(user, _get_format(user, allow_draft=allow_draft), issuer=issuer)
    if "session" in subject:
        opaque = _get_object(subject["session"])
        session = _parse_simple(opaque, _get_format(opaque, allow_draft=allow_draft), issuer=issuer)
    return EventSubject(sub=person.sub or person.opaque_id, sid=session.opaque_id)


def _parse_simple(subject: Mapping[str, Any], subject_format: str, *, issuer: str) -> EventSubject:
    if subject_format == "opaque":
        return EventSubject(opaque_id=_get_text(subject, "id"))
    if subject_format != "iss_sub":
        return EventSubject()
    if _get_text(subject, "iss") != issuer:
        raise SecurityEventTokenInvalid("sub_id_invalid")
    return EventSubject(sub=_get_text(subject, "sub"))


def _get_object(value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise SecurityEventTokenInvalid("sub_id_invalid")
    return value


def _get_format(subject: Mapping[str, Any], *, allow_draft: bool) -> str:
    if allow_draft and "format" not in subject and "subject_type" in subject:
        draft = _get_text(subject, "subject_type")
        return _DRAFT_FORMATS.get(draft, draft)
    return _get_text(subject, "format")


def _get_text(subject: Mapping[str, Any], name: str) -> str:
    value = subject.get(name)
    if not isinstance(value, str) or not value:
        raise SecurityEventTokenInvalid("sub_id_invalid")
    return value

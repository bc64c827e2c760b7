"""Claims and purposes in words for the person they are about. No Django."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django_phi_oidc.access.policy import PATIENT_REQUEST, PURPOSES
from django_phi_oidc.config.claims import ClaimRetention

LABELS = {"birthdate": "Date of birth", "address": "Address", "phone_number": "Phone number", "email": "E-mail address"}
IN_A_FEW_WORDS = {
    PATIENT_REQUEST: ("My own request", "I want to see what is held."),
    "TREAT": ("Treatment", "Someone who treats me needs it."),
    "HOPERAT": ("Running the clinic", "Letters and appointments."),
    "HPAYMT": ("Payment", "A bill, or my insurance."),
}
UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


@dataclass(frozen=True, slots=True)
class Purpose:
    """A purpose of use as people say it."""

    code: str
    name: str
    hint: str = ""


def label(name: str) -> str:
    """Return a claim's name as people say it."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


def purpose(code: str) -> Purpose:
    """Return the purpose of that code, in HL7's words where we have none of our own."""
    return Purpose(code, *IN_A_FEW_WORDS.get(code, (PURPOSES.get(code, code).capitalize(),)))


def did(action: str) -> str:
    """Return what somebody did who saw something."""
    return "took a copy of" if action == "subject.exported" else "looked at"


def looked_at(action: str, claims: Sequence[str], resource: str) -> str:
    """Return what somebody saw."""
    if action == "subject.exported":
        return "everything that is held about you"
    if claims:
        return f"your {', '.join(label(claim).lower() for claim in claims)}"
    return "your chart" if resource.startswith("Patient/") else resource


def retention(value: ClaimRetention) -> str:
    """Return in words how long a claim is kept."""
    if value is None:
        return "used when you sign in, not kept"
    if value == "session":
        return "until you sign out"
    return f"for {duration(value)}"


def duration(value: timedelta) -> str:
    """Return a duration in its largest unit that divides it."""
    seconds = int(value.total_seconds())
    name, size = next((unit for unit in UNITS if seconds % unit[1] == 0), UNITS[-1])
    count = seconds // size
    return f"{count} {name}{'' if count == 1 else 's'}"


def text(value: Any) -> str:
    """Return a claim's value as lines of text; an address is an object. Spec: OIDC Core 5.1.1."""
    if isinstance(value, Mapping):
        return str(value.get("formatted") or "\n".join(str(part) for part in value.values()))
    if isinstance(value, list):
        return "\n".join(text(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)

"""Texts for claims, purposes and disclosures. Does not import Django."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django_phi_oidc.audit.purposes import PATIENT_REQUEST, PURPOSES
from django_phi_oidc.config.claims import ClaimRetention

LABELS = {"birthdate": "Date of birth", "address": "Address", "phone_number": "Phone number", "email": "E-mail address"}
PURPOSE_TEXTS = {
    PATIENT_REQUEST: ("My own request", "I want to see my data."),
    "TREAT": ("Treatment", "Someone who treats me needs it."),
    "HOPERAT": ("Running the clinic", "Letters and appointments."),
    "HPAYMT": ("Payment", "A bill, or my insurance."),
}
UNITS = (("day", 86400), ("hour", 3600), ("minute", 60), ("second", 1))


@dataclass(frozen=True, slots=True)
class Purpose:
    """A purpose of use with its name and hint."""

    code: str
    name: str
    hint: str = ""


def get_label(name: str) -> str:
    """Return the label of a claim."""
    return LABELS.get(name, name.replace("_", " ").capitalize())


def get_purpose(code: str) -> Purpose:
    """Return the purpose of that code, with HL7's name if the portal has none."""
    return Purpose(code, *PURPOSE_TEXTS.get(code, (PURPOSES.get(code, code).capitalize(),)))


def format_action(action: str) -> str:
    """Return the action of a disclosure as text."""
    return "took a copy of" if action == "subject.exported" else "looked at"


def format_disclosed_data(action: str, claims: Sequence[str], resource: str) -> str:
    """Return the disclosed data as text."""
    if action == "subject.exported":
        return "all stored data about you"
    if claims:
        return f"your {', '.join(get_label(claim).lower() for claim in claims)}"
    return "your chart" if resource.startswith("Patient/") else resource


def format_retention(value: ClaimRetention) -> str:
    """Return the retention of a claim as text."""
    if value is None:
        return "used when you sign in, not stored"
    if value == "session":
        return "until you sign out"
    return f"for {format_duration(value)}"


def format_duration(value: timedelta) -> str:
    """Return a duration in the largest unit that divides it."""
    seconds = int(value.total_seconds())
    name, size = next((unit for unit in UNITS if seconds % unit[1] == 0), UNITS[-1])
    count = seconds // size
    return f"{count} {name}{'' if count == 1 else 's'}"


def format_value(value: Any) -> str:
    """Return a claim's value as lines of text. An address is an object. Spec: OIDC Core 5.1.1."""
    if isinstance(value, Mapping):
        return str(value.get("formatted") or "\n".join(str(part) for part in value.values()))
    if isinstance(value, list):
        return "\n".join(format_value(item) for item in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)

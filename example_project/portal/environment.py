"""Typed access to environment variables, with all faults in one error."""

import json
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured


class Environment:
    """Reads variables and collects faults; `check` raises all of them."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._variables = variables
        self._missing: list[str] = []
        self._faults: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """Return the variable, or default if it is missing or empty."""
        return self._variables.get(name, "").strip() or default

    def required(self, name: str) -> str:
        """Return the variable. It is a fault if it is missing."""
        value = self.text(name)
        if not value:
            self._missing.append(name)
        return value

    def items(self, name: str, default: str = "") -> list[str]:
        """Return the items of a comma-separated list."""
        return [item.strip() for item in self.text(name, default).split(",") if item.strip()]

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return whether the variable is 1 (also true, on, yes); otherwise it must be 0 (false, off, no)."""
        value = self.text(name, "1" if default else "0").lower()
        if value not in {"0", "1", "true", "false", "on", "off", "yes", "no"}:
            self._faults.append(f"{name} must be 1 or 0.")
        return value in {"1", "true", "on", "yes"}

    def seconds(self, name: str) -> int | None:
        """Return a whole number of seconds, or None if the variable is empty."""
        value = self.text(name)
        if not value:
            return None
        if not value.isascii() or not value.isdigit():
            self._faults.append(f"{name} must be a whole number of seconds.")
            return None
        return int(value)

    def json(self, name: str, default: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a JSON object."""
        value = self.text(name)
        if not value:
            return default
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        if not isinstance(parsed, dict):
            self._faults.append(f"{name} must be a JSON object.")
            return default
        return parsed

    def check(self) -> None:
        """Raises: ImproperlyConfigured with the names of all missing and invalid variables, without values."""
        if self._missing:
            self._faults.insert(0, f"With DJANGO_DEBUG off these must be set: {', '.join(self._missing)}.")
        if self._faults:
            raise ImproperlyConfigured("The environment: " + " ".join(self._faults))

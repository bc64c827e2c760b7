"""The severities of alerts. Apart from `rules.py`, which web processes do not need."""

from enum import StrEnum


class Severity(StrEnum):
    """How urgent an alert is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

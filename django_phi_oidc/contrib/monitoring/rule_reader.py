"""Evaluate one event that an anomaly rule failed on, when an operator retries it."""

import uuid

from ...extensions import EventReader


class RuleReader:
    """The reader `rule:KIND` of each rule."""

    kind = "rule"

    def retry(self, reader: str, event_id: uuid.UUID) -> None:
        """Raises: LookupError without the event or the rule; what the rule raises;
        AuditUnavailable.
        """
        # Not at the start: the web processes evaluate no rules.
        from .tasks import evaluate_set_aside_event  # noqa: PLC0415

        evaluate_set_aside_event(reader.partition(":")[2], event_id)

    def drop(self, event_id: uuid.UUID) -> str:
        """Return an empty text: the event is in the log."""
        return ""


RULE_READER: EventReader = RuleReader()

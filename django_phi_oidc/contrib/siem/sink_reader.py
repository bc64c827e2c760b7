"""Send one event that a sink refused, when an operator retries it."""

import uuid

from ...extensions import EventReader


class SinkReader:
    """The reader `sink:NAME` of each declared sink."""

    kind = "sink"

    def retry(self, reader: str, event_id: uuid.UUID) -> None:
        """Raises: LookupError without the event or the sink; ValueError if the sink does not accept
        it; AuditUnavailable.
        """
        # Not at the start: the web processes do not deliver.
        from .tasks import deliver_event  # noqa: PLC0415

        deliver_event(reader.partition(":")[2], event_id)

    def drop(self, event_id: uuid.UUID) -> str:
        """Return an empty text: the event is in the log."""
        return ""


SINK_READER: EventReader = SinkReader()

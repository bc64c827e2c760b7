"""P1: send items to a sink around those that it refuses, so that one event does not stop it.

A sink may refuse one event for its contents, as a firewall does. It may also refuse everything,
because its address or its token is wrong. So an item counts as refused only if the sink accepts
another one in the same minute.
"""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ...audit.formats.items import LogItem, SealedCheckpoint, SealedEvent
from .http_protocol import SendResult

logger = logging.getLogger(__name__)
SEARCH_SECONDS = 40.0
"""No exchange of a search begins later. With the timeout of one exchange, less than the lease of a
cursor.
"""


class LogSink(Protocol):
    """A system outside the portal that takes items."""

    def send(self, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
        """Return the result of the whole exchange within timeout_seconds. An exception means that
        an item has no form in the format of the sink.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What one sink made of a batch."""

    result: SendResult
    """Its `accepted` counts the refused item as well."""
    refused_item: SealedEvent | None = None
    """The last one that counts as accepted, but was refused."""
    error: str = ""
    """The code of its refusal."""


def send_around_refused(
    sink: LogSink, items: Sequence[LogItem], *, timeout_seconds: float
) -> SearchResult:
    """Send items up to the first one that the sink refuses although it accepts another one.

    timeout_seconds: of each exchange. Items may be sent twice.
    """
    ends_at = time.monotonic() + SEARCH_SECONDS
    result = _send(sink, items, timeout_seconds=timeout_seconds)
    accepted = result.accepted
    # The first refused item is one of the next `count` items.
    count = len(items) - accepted
    while result.needs_operator and count > 1 and time.monotonic() < ends_at:
        half = items[accepted : accepted + count // 2]
        part = _send(sink, half, timeout_seconds=timeout_seconds)
        accepted += part.accepted
        if part.accepted == len(half):
            count -= len(half)
        elif part.needs_operator:
            result = part
            count = len(half) - part.accepted
        else:
            return SearchResult(result=replace(part, accepted=accepted))
    if not result.needs_operator or count != 1 or time.monotonic() >= ends_at:
        return SearchResult(result=replace(result, accepted=accepted))

    refused_item = items[accepted]
    other_item = _find_other_item(items, accepted)
    if not isinstance(refused_item, SealedEvent) or other_item is None:
        return SearchResult(result=replace(result, accepted=accepted))
    if not _send(sink, [other_item], timeout_seconds=timeout_seconds).accepted:
        return SearchResult(result=replace(result, accepted=accepted))
    # Once more: the sink may refuse nothing any more.
    last = _send(sink, [refused_item], timeout_seconds=timeout_seconds)
    if last.accepted:
        return SearchResult(result=SendResult(accepted=accepted + 1))
    if not last.needs_operator:
        return SearchResult(result=replace(last, accepted=accepted))
    return SearchResult(
        result=SendResult(accepted=accepted + 1), refused_item=refused_item, error=last.fault
    )


def _find_other_item(items: Sequence[LogItem], refused_index: int) -> LogItem | None:
    """Return the item of which the sink most likely accepts the contents: one that it has accepted
    just now, a checkpoint, or the last one.
    """
    if refused_index > 0:
        return items[refused_index - 1]
    for item in items:
        if isinstance(item, SealedCheckpoint):
            return item
    if len(items) > 1:
        return items[-1]
    return None


def _send(sink: LogSink, items: Sequence[LogItem], *, timeout_seconds: float) -> SendResult:
    try:
        return sink.send(items, timeout_seconds=timeout_seconds)
    except Exception as error:  # noqa: BLE001 -- of any formatter, for any event
        logger.error("An item has no form in the format of a sink: %s.", type(error).__name__)  # noqa: TRY400 -- the traceback may contain the event
        return SendResult(accepted=0, fault="item_unformattable", needs_operator=True)

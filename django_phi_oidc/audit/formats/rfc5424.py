"""Syslog messages, and their framing in a stream. No Django. Spec: RFC 5424 6, RFC 5425 4.3, RFC
6587 3.4.1.
"""

import re

from .items import LogItem, SealedEvent, format_instant

FACILITY = 13
"""`log audit`"""
APP_NAME = "phi_oidc"
SD_ID = "phi@32473"
"""32473 is the enterprise number for documentation (RFC 5612): this package has no number."""
_SEVERITY_BY_OUTCOME = {"success": 6, "failure": 4, "error": 3}
_ALERT_SEVERITY = 1
_NOTICE_SEVERITY = 5
_NOT_PRINTABLE = re.compile(r"[^!-~]")
_BOM = b"\xef\xbb\xbf"


def build_frame(item: LogItem, text: str, *, hostname: str) -> bytes:
    """Return the message with its length in front (octet counting), so that it may contain any
    byte.
    """
    message = build_message(item, text, hostname=hostname)
    return b"%d %s" % (len(message), message)


def build_message(item: LogItem, text: str, *, hostname: str) -> bytes:
    """Return the message with `text`, which must be one line.

    The BOM marks the text as UTF-8. ASCII text has none, since not every collector removes it.
    """
    if isinstance(item, SealedEvent):
        event = item.authenticated_event.event
        if event.action == "alert.raised":
            severity = _ALERT_SEVERITY
        else:
            severity = _SEVERITY_BY_OUTCOME[event.outcome]

        time = event.occurred_at
        message_id = event.action
        parameters = {"id": str(event.id), "leaf": str(item.leaf_index)}
    else:
        severity = _NOTICE_SEVERITY
        time = item.sealed_at
        message_id = "checkpoint"
        parameters = {"checkpoint": str(item.tree_size)}
    escaped = {}
    for name, value in parameters.items():
        escaped[name] = re.sub(r'(["\\\]])', r"\\\1", value)
    data = "".join(f' {name}="{value}"' for name, value in escaped.items())
    host = _header_field(hostname, 255)
    message_id = _header_field(message_id, 32)
    header = (
        f"<{FACILITY * 8 + severity}>1 {format_instant(time)} {host} "
        f"{APP_NAME} - {message_id} [{SD_ID}{data}] "
    )
    return header.encode("ascii") + (b"" if text.isascii() else _BOM) + text.encode("utf-8")


def _header_field(text: str, max_length: int) -> str:
    return _NOT_PRINTABLE.sub("_", text)[:max_length] or "-"

"""The filesystem broker."""

import json
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import filesystem
from portal.broker import Transport
from portal.celery import app
from portal.stores import broker_options


@pytest.fixture(params=[filesystem.Transport, Transport], ids=["kombu", "portal"])
def channel(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    options = broker_options("filesystem://", folder=tmp_path)
    with Connection(transport=request.param, transport_options=options) as connection:
        yield connection.channel()


class ReadWhileWritten:
    """A message that reads the queue while it is serialized."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.read: Any = None

    def __json__(self) -> str:
        try:
            self.read = self.channel._get("celery")
        except (Empty, json.JSONDecodeError) as error:
            self.read = error
        return "complete"


def test_incomplete_message_is_not_read(channel: Any, request: pytest.FixtureRequest) -> None:
    message = ReadWhileWritten(channel)
    channel._put("celery", {"body": message})
    if "kombu" in request.node.name:
        assert isinstance(message.read, json.JSONDecodeError), "the reason for the portal's broker"
    else:
        assert isinstance(message.read, Empty)
        assert channel._get("celery") == {"body": "complete"}


def test_half_written_message_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, write_text, sizes = broker_options("filesystem://", folder=tmp_path), Path.write_text, []

    def write_in_two_parts(path: Path, data: str) -> int:
        write_text(path, data[: len(data) // 2])
        with pytest.raises(Empty):
            channel._get("celery")
        sizes.append(channel._size("celery"))
        return write_text(path, data)

    monkeypatch.setattr(Path, "write_text", write_in_two_parts)
    with Connection(transport=Transport, transport_options=options) as connection:
        channel: Any = connection.channel()
        channel._put("celery", {"body": "whole"})
        assert (sizes, channel._get("celery")) == ([0], {"body": "whole"})


def test_messages_are_delivered_once_to_their_queue(channel: Any) -> None:
    for number in range(3):
        channel._put("celery", {"body": number})
    channel._put("other", {"body": "other"})
    assert channel._size("celery") == 3
    assert {channel._get("celery")["body"] for _ in range(3)} == {0, 1, 2}
    assert channel._get("other") == {"body": "other"}
    with pytest.raises(Empty):
        channel._get("celery")


def test_portal_uses_its_broker() -> None:
    with app.connection_for_write("filesystem://") as connection:
        assert type(connection.transport) is Transport

"""The broker in a folder, for one machine: kombu's, but that no worker takes a message before it is whole, and dies."""

import os
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import filesystem


class _Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        folder, data = Path(self.data_folder_out), filesystem.dumps(payload)
        # A name that is of no queue, until the message is whole.
        unfinished = folder / f"{uuid.uuid4()}.part"
        unfinished.write_text(data)
        os.replace(unfinished, folder / f"{filesystem.monotonic() * 1000:.0f}_{uuid.uuid4()}.{queue}.msg")


class Transport(filesystem.Transport):
    """Like kombu's filesystem transport, on the same folders and options. POSIX: a rename is atomic."""

    Channel = _Channel

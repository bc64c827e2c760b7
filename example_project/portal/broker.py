"""kombu's filesystem broker, for one machine, with atomic writes: a worker never reads an incomplete message."""

import os
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import filesystem


class _Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:
        directory, data = Path(self.data_folder_out), filesystem.dumps(payload)
        # Until the message is complete, its file name does not belong to a queue.
        temporary_path = directory / f"{uuid.uuid4()}.part"
        temporary_path.write_text(data)
        os.replace(temporary_path, directory / f"{filesystem.monotonic() * 1000:.0f}_{uuid.uuid4()}.{queue}.msg")


class Transport(filesystem.Transport):
    """kombu's filesystem transport with the same directories and options. On POSIX, a rename is atomic."""

    Channel = _Channel

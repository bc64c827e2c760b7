"""What any logger says, from DEBUG up, in every thread of this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class CapturedLog(logging.Handler):
    """Keeps every line as a log file would have it, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.lines.append(self.format(record))


@contextmanager
def capture_all_logs() -> Iterator[CapturedLog]:
    """Keep whatever any logger says for the length of the block."""
    root, log = logging.getLogger(), CapturedLog()
    level = root.level
    known = [each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger)]
    # What does not reach the root is heard where it ends.
    heard = [root, *(each for each in known if not each.propagate)]
    for logger in heard:
        logger.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.setLevel(level)
        for logger in heard:
            logger.removeHandler(log)

"""Captures the records of all loggers from DEBUG up, in every thread of this process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class CapturedLog(logging.Handler):
    """Stores each record as the text that a log file would contain, including tracebacks."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Store the record."""
        self.lines.append(self.format(record))


@contextmanager
def capture_all_logs() -> Iterator[CapturedLog]:
    """Capture all log records for the duration of the block."""
    root = logging.getLogger()
    log = CapturedLog()
    level = root.level
    # Records that do not propagate to the root are captured at their own logger.
    loggers = [root]
    for logger in root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger) and not logger.propagate:
            loggers.append(logger)
    for logger in loggers:
        logger.addHandler(log)
    root.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        root.setLevel(level)
        for logger in loggers:
            logger.removeHandler(log)

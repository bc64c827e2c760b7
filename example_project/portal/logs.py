"""Removes query strings from log records, because callback URLs contain a code and a state."""

import logging
import re

QUERY = re.compile(r"\?[^\s\"']+")


class WithoutQuery(logging.Filter):
    """Replaces query strings with `?…`. All records pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = QUERY.sub("?…", record.getMessage()), ()
        return True

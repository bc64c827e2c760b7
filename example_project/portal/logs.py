"""Keeps query strings out of the log: on the way back from a provider they hold a code and a state."""

import logging
import re

QUERY = re.compile(r"\?[^\s\"']+")


class WithoutQuery(logging.Filter):
    """Lets every record pass, and writes `?…` where its text had a query string."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = QUERY.sub("?…", record.getMessage()), ()
        return True

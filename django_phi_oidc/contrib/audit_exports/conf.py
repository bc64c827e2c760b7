"""The options of exports of the audit log."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ...options import read_option

export_folder: Callable[[], Path | None] = partial(read_option, "AUDIT_EXPORTS")

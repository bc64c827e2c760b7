"""The option `AUDIT_EXPORTS`. No Django."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from ...config.option_grades import LATER
from ...config.option_parsers import parse_absolute_path


@dataclass(frozen=True, kw_only=True)
class AuditExportsOptions:
    """The options of exports of the audit log."""

    AUDIT_EXPORTS: Annotated[Path, parse_absolute_path] | None = field(default=None, metadata=LATER)
    """Absolute path of a folder, mode 0700, that the portal and its workers share, for [exports of
    many events](../how-to/read-the-audit-log.md#export-events). Default: none: no export of more
    than 10,000 events.
    """

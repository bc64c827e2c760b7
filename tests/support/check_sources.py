"""The modules of the system checks."""

from pathlib import Path

import django_phi_oidc

_PACKAGE = Path(django_phi_oidc.__file__).parent
CHECK_MODULES = sorted(
    [
        *_PACKAGE.glob("checks/*.py"),
        *_PACKAGE.glob("audit/checks/*.py"),
        *_PACKAGE.glob("contrib/*/checks.py"),
        *_PACKAGE.glob("contrib/common/*_checks.py"),
    ]
)
"""Those of the core, of the audit log, of each app, and what several apps share."""

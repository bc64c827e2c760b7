"""The rule codes of the core and of all apps."""

from importlib import import_module
from pathlib import Path

import django_phi_oidc
from django_phi_oidc.errors import RuleCode, list_codes

PACKAGE = Path(django_phi_oidc.__file__).parent


def list_all_codes() -> list[RuleCode]:
    """Return the codes, also those of apps that are not installed or have not imported them yet."""
    for path in sorted(PACKAGE.rglob("*errors.py")):
        name = path.relative_to(PACKAGE.parent).with_suffix("").as_posix().replace("/", ".")
        if not name.startswith("django_phi_oidc.testing."):
            import_module(name)
    return list(list_codes())

"""`manage.py migrate`: creates missing key files, then migrates `default` and `phi_audit`."""

import sys

from django.conf import settings
from django.core.management.commands import migrate

from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.contrib.key_rotation.subcommands.keys import generate_key_files
from portal import secretfiles
from portal.groups import create_groups


class Command(migrate.Command):
    """Migrates both databases, but only from the command line: a test run migrates its databases individually."""

    def run_from_argv(self, argv: list[str]) -> None:
        """Create keys, then migrate both databases, or the one in --database."""
        if {"-h", "--help"}.isdisjoint(argv) and settings.DEBUG:
            self.create_files()
        super().run_from_argv(argv)
        if not any(argument.startswith("--database") for argument in argv):
            self.stdout.write(self.style.MIGRATE_HEADING(f"Database {AUDIT_ALIAS}:"))
            sys.stdout.flush()
            # The checks have run already. A check that misses the audit tables must not prevent their creation.
            super().run_from_argv([*argv, "--database", AUDIT_ALIAS, "--skip-checks"])
            create_groups()

    def create_files(self) -> None:
        """Create missing key files and the two secret files."""
        paths = list(generate_key_files())
        secret_paths = (settings.SECRET_KEY_FILE, settings.CLIENT_SECRET_FILE)
        paths += [path for path in secret_paths if secretfiles.create(path)]
        for path in paths:
            self.stdout.write(f"Created {path}")

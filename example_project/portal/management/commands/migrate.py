"""`manage.py migrate`: makes the key files that are missing, migrates `default`, and goes on to `phi_audit`."""

import sys

from django.conf import settings
from django.core.management.commands import migrate

from django_phi_oidc.audit.router import AUDIT_ALIAS
from django_phi_oidc.management.subcommands.keys import generate_key_files
from portal import secretfiles
from portal.groups import make_groups


class Command(migrate.Command):
    """Django's own, and from the command line alone it goes on: a test run makes its databases one by one."""

    def run_from_argv(self, argv: list[str]) -> None:
        """Make keys, then migrate both databases, or the one that --database names."""
        if {"-h", "--help"}.isdisjoint(argv) and settings.DEBUG:
            self.make_files()
        super().run_from_argv(argv)
        if not any(argument.startswith("--database") for argument in argv):
            self.stdout.write(self.style.MIGRATE_HEADING(f"Database {AUDIT_ALIAS}:"))
            sys.stdout.flush()
            # Checked a moment ago; a check that misses the trail's table must not keep it from being made.
            super().run_from_argv([*argv, "--database", AUDIT_ALIAS, "--skip-checks"])
            make_groups()

    def make_files(self) -> None:
        """Make the key rings and the two secrets that stand in files; those that exist stay as they are."""
        made = list(generate_key_files())
        made += [path for path in (settings.SECRET_KEY_FILE, settings.CLIENT_SECRET_FILE) if secretfiles.make(path)]
        for path in made:
            self.stdout.write(f"Made {path}")

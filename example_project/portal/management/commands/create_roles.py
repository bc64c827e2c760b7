"""`manage.py create_roles`: the PostgreSQL roles of the deployed processes."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import connection, transaction
from psycopg import sql

from django_phi_oidc.audit.db_privileges import grant_statements

APPLICATION = "portal"
"""The role of `default` in every process."""
AUDIT_ROLES = {"portal_audit": False, "portal_worker": False, "portal_sealer": True}
"""The roles of `phi_audit` in the portal, the worker and the sealer, and whether they write the Merkle tree."""
TIMEOUTS = {
    APPLICATION: {"idle_in_transaction_session_timeout": "60s"},
    # The portal gives up after 4.2 s. Workers also run exports and verifications, which take longer.
    "portal_audit": {"idle_in_transaction_session_timeout": "60s", "statement_timeout": "4s"},
    "portal_worker": {"idle_in_transaction_session_timeout": "60s"},
    "portal_sealer": {"idle_in_transaction_session_timeout": "60s"},
}
APPLICATION_GRANTS = (
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {APPLICATION}",
    f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {APPLICATION}",
    f"REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM {APPLICATION}",
)


class Command(BaseCommand):
    """Creates the roles, sets their passwords and timeouts, and grants what they need. Idempotent."""

    help = (
        f"Creates or updates the PostgreSQL roles {', '.join([APPLICATION, *AUDIT_ROLES])} with the passwords in "
        "DATABASE_ROLES_JSON, and grants what they need on the tables. Run it as the owner, after each `migrate`: both "
        "aliases are one database."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises: CommandError."""
        passwords = settings.ROLE_PASSWORDS
        if connection.vendor != "postgresql":
            raise CommandError("Only PostgreSQL has roles.")
        if missing := [role for role in TIMEOUTS if not passwords.get(role)]:
            raise CommandError(f"DATABASE_ROLES_JSON has no password of {', '.join(missing)}.")
        with transaction.atomic(), connection.cursor() as cursor:
            for role in TIMEOUTS:
                create_role(cursor, role, passwords[role])
            audit_grants = [grant_statements(role, is_sealer=is_sealer) for role, is_sealer in AUDIT_ROLES.items()]
            # Those of the audit tables come last: they also revoke.
            for grants in (APPLICATION_GRANTS, grant_statements(APPLICATION, is_sealer=False), *audit_grants):
                for statement in grants:
                    cursor.execute(statement)
        self.stdout.write(f"Roles: {', '.join(TIMEOUTS)}.")


def create_role(cursor: Any, role: str, password: str) -> None:
    """Create the role unless it exists, and set its password and timeouts. The server sees no password in clear."""
    cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [role])
    action = "ALTER" if cursor.fetchone() else "CREATE"
    verifier = cursor.connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
    name = sql.Identifier(role)
    cursor.execute(sql.SQL(f"{action} ROLE {{}} LOGIN PASSWORD {{}}").format(name, sql.Literal(verifier)))
    for setting, value in TIMEOUTS[role].items():
        cursor.execute(sql.SQL(f"ALTER ROLE {{}} SET {setting} = {{}}").format(name, sql.Literal(value)))

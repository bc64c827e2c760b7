"""The served portal, as tests use it."""

import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from portal.demo.browser import Browser, Page

PASSWORDS = {name: f"{name}-demo" for name in ("amina", "jonas", "lena", "otto", "sara", "hugo")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The URLs of the portal and its provider, the directory of their files, and the environment of the portal."""

    portal: str
    provider: str
    var: Path
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    def sign_in(self, browser: Browser, username: str = "amina", path: str = "/portal/") -> Page:
        """Open the page at path, sign in or step up at the provider, and return the resulting page."""
        login = browser.open(self.portal + path)
        fields = {"username": username, "password": PASSWORDS[username], "decision": "sign-in"}
        return browser.submit(login, fields)

    @contextmanager
    def treating(self, clinician: str, patient: str) -> Iterator[None]:
        """Add a clinician to the care team of a patient with a chart, both by primary key, during the block."""
        chart = "SELECT id FROM portal_chart WHERE patient_id = ?"
        with closing(sqlite3.connect(self.var / "portal.sqlite3", timeout=20)) as connection:
            connection.execute(
                f"INSERT INTO portal_chart_care_team (user_id, chart_id) VALUES (?, ({chart}))", [clinician, patient]
            )
            connection.commit()
            try:
                yield
            finally:
                connection.execute("DELETE FROM portal_chart_care_team")
                connection.commit()

    def list_events(self) -> list[tuple[str, str, str, str]]:
        """Return action, outcome, reason and purpose of all events."""
        with closing(sqlite3.connect(self.var / "audit.sqlite3")) as connection:
            return connection.execute(
                "SELECT action, outcome, reason, purpose FROM phi_oidc_audit_auditevent ORDER BY id"
            ).fetchall()

    def wait_until_expired(self, name: str) -> bool:
        """Wait until all stored claims of that name have expired. Without a worker, they are not erased."""
        query = "SELECT count(*) FROM django_phi_oidc_storedclaim WHERE name = ? AND expires_at > datetime('now')"
        deadline = time.monotonic() + 10
        with closing(sqlite3.connect(self.var / "portal.sqlite3")) as connection:
            while connection.execute(query, [name]).fetchone()[0]:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.1)
        return True

    @contextmanager
    def failing_audit_log(self) -> Iterator[None]:
        """Make the audit database refuse all events for the duration of the block."""
        statement = (
            "CREATE TRIGGER refusing BEFORE INSERT ON phi_oidc_audit_auditevent BEGIN SELECT RAISE(ABORT, 'away'); END"
        )
        with closing(sqlite3.connect(self.var / "audit.sqlite3", timeout=20)) as connection:
            connection.execute(statement)
            connection.commit()
            try:
                yield
            finally:
                connection.execute("DROP TRIGGER refusing")
                connection.commit()

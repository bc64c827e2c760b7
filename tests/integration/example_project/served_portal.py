"""The served portal as tests see it."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from portal.demo.browser import Browser, Page

PASSWORDS = {name: f"{name}-demo" for name in ("amina", "jonas", "lena", "otto")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where the portal, its provider and its files are."""

    portal: str
    provider: str
    var: Path

    def sign_in(self, browser: Browser, username: str = "amina", path: str = "/portal/") -> Page:
        """Return the page at path, to which signing in, or signing in more strongly, leads."""
        login = browser.open(self.portal + path)
        answer = {"username": username, "password": PASSWORDS[username], "decision": "sign-in"}
        return browser.submit(login, answer)

    @contextmanager
    def treating(self, clinician: str, patient: str) -> Iterator[None]:
        """Have a clinician, by primary key, in the care team of a patient who has a chart, for as long."""
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

    def trail(self) -> list[tuple[str, str, str, str]]:
        """Return action, outcome, reason and purpose of every event so far."""
        with closing(sqlite3.connect(self.var / "audit.sqlite3")) as connection:
            return connection.execute(
                "SELECT action, outcome, reason, purpose FROM django_phi_oidc_auditevent ORDER BY id"
            ).fetchall()

    def wait_until_expired(self, name: str) -> bool:
        """Return once every stored claim of that name is past its time; nobody erases it, there is no worker."""
        query = "SELECT count(*) FROM django_phi_oidc_storedclaim WHERE name = ? AND expires_at > datetime('now')"
        deadline = time.monotonic() + 10
        with closing(sqlite3.connect(self.var / "portal.sqlite3")) as connection:
            while connection.execute(query, [name]).fetchone()[0]:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.1)
        return True

    @contextmanager
    def trail_refusing(self) -> Iterator[None]:
        """Make the audit database refuse every event for the length of the block."""
        refuse = (
            "CREATE TRIGGER refusing BEFORE INSERT ON django_phi_oidc_auditevent BEGIN SELECT RAISE(ABORT, 'away'); END"
        )
        with closing(sqlite3.connect(self.var / "audit.sqlite3", timeout=20)) as connection:
            connection.execute(refuse)
            connection.commit()
            try:
                yield
            finally:
                connection.execute("DROP TRIGGER refusing")
                connection.commit()

"""A portal under ASGI whose database accepts no further connection: its pages have status 503, never 500."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from django.db import connections
from psycopg import sql

from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, client, declaration, events
from tests.support.portal_process import portal_process

pytestmark = [
    pytest.mark.django_db(**EVERYTHING),
    pytest.mark.postgresql,
    pytest.mark.without_pooler("it limits the connections of a role to the server, and the pooler shares those it has"),
]
BROWSERS = 12


@dataclass
class Portal:
    """A portal whose role may have a limited number of connections."""

    base: str
    role: str

    def limit_connections(self, count: int) -> None:
        """count: -1: no limit."""
        _execute("default", "ALTER ROLE {} CONNECTION LIMIT " + str(count), self.role)

    def browser(self) -> Browser:
        browser = Browser(self.base)
        browser.headers = {"Accept": "text/html"}
        return browser


def _execute(alias: str, statement: str, role: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(sql.Identifier(role)).as_string())


@pytest.fixture(params=["WSGI", "ASGI"])
def portal(request: pytest.FixtureRequest, op: DemoProvider) -> Iterator[Portal]:
    role = f"phi_limited_{secrets.token_hex(4)}"
    # No superuser, for whom PostgreSQL ignores the limit.
    _execute("default", "CREATE ROLE {} LOGIN", role)
    for alias in ("default", "phi_audit"):
        _execute(alias, "GRANT ALL ON ALL TABLES IN SCHEMA public TO {}", role)
        _execute(alias, "GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {}", role)
    try:
        is_asgi = str(int(request.param == "ASGI"))
        phi_oidc = {"PROVIDERS": {"default": declaration(op)}}
        with portal_process(phi_oidc, TEST_DATABASE_USER=role, TEST_ASGI=is_asgi) as base:
            op.register_client(client(base))
            yield Portal(base, role)
    finally:
        for alias in ("default", "phi_audit"):
            _execute(alias, "DROP OWNED BY {}", role)
        _execute("default", "DROP ROLE {}", role)


def test_refused_connection_is_a_503_page_and_a_reload_continues(portal: Portal, op: DemoProvider) -> None:
    browser, pending = portal.browser(), portal.browser()
    browser.sign_in(op)
    user, callback = browser.user(), pending.get_callback_url(op)
    portal.limit_connections(0)
    pages = [browser.get("/oidc/authenticate/"), pending.get(callback), browser.post("/oidc/logout/")]
    for page in pages:
        headers = dict(page.headers)
        assert (page.status, headers["Retry-After"], headers["Cache-Control"]) == (503, "10", "no-store")
        assert "This page is not available at the moment" in page.body
    browser.headers = {}
    script = browser.get("/oidc/session/")
    assert (script.status, dict(script.headers)["Content-Type"]) == (503, "application/problem+json")
    assert browser.get("/portal/home/").status == 500, "a page of the project keeps its error page"
    portal.limit_connections(-1)
    assert browser.user() == user
    assert pending.get(callback).status == 302
    assert browser.post("/oidc/logout/").status == 302
    assert [event.reason for event in events(action="session.ended")] == ["logout"]


def test_sign_ins_and_logouts_at_a_database_with_few_connections_are_never_a_500(
    portal: Portal, op: DemoProvider
) -> None:
    portal.limit_connections(4)

    def visit(_: int) -> list[PortalResponse]:
        browser = portal.browser()
        page = browser.get(browser.get_callback_url(op))
        return [page, *([browser.post("/oidc/logout/")] if page.status == 302 else [])]

    with ThreadPoolExecutor(BROWSERS) as threads:
        pages = [page for visited in threads.map(visit, range(2 * BROWSERS)) for page in visited]
    assert {503} <= {page.status for page in pages} <= {302, 503}
    assert all("Retry-After" in dict(page.headers) for page in pages if page.status == 503)
    portal.limit_connections(-1)
    browser = portal.browser()
    assert browser.sign_in(op).status == 302
    assert browser.user() != ""
    assert OIDCSession.objects.live().count() >= 1

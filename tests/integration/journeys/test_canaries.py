"""Recognisable claim values are found only where they were revealed on purpose, from sign-in to deletion.

The search covers everything that a portal writes: tables, files, messages and pages. In each place it first has to
find a control value that the test wrote there.
"""

import base64
import gzip
import json
import pickle
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from django.conf import settings as django_settings
from django.contrib.auth.models import Group
from django.contrib.sessions.backends.db import SessionStore
from django.core.cache.backends.filebased import FileBasedCache
from django.core.signing import dumps as signed
from django.db import connections

from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.recorder import record
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.testing.canary.encoded_text_search import find_texts
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, sign_jwt
from tests.integration.journeys.file_search import find_in_files
from tests.integration.journeys.installation import Installation
from tests.integration.journeys.tcp_relay import relay_to
from tests.support import databases
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING, client, declaration

pytestmark = pytest.mark.django_db(**EVERYTHING)

CLAIMS = {
    "birthdate": {"purpose": "TREAT", "basis": "identity check", "retention": "session"},
    "address": {
        **{"purpose": "HOPERAT", "basis": "letters", "retention": 86400},
        "members": ["postal_code", "country"],
    },
    "phone_number": {"purpose": "HOPERAT", "basis": "reminders", "retention": 3600},
    "nickname": {"purpose": "TREAT", "basis": "form of address", "retention": None},
}


def canary() -> str:
    """Return a unique text with characters that JSON, HTML and URLs escape."""
    return f"Kanarienvögel & {randomness.token_b64url(12)}"


# The search


def _pickled(data: bytes) -> bytes:
    return pickle.dumps(["x" * 50, data.decode()])


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "unchanged": lambda data: data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "JSON": lambda data: json.dumps({"a": data.decode()}).encode(),
    "JSON in JSON": lambda data: json.dumps(json.dumps(data.decode())).encode(),
    "HTML": lambda data: data.replace(b"&", b"&amp;"),
    "a URL": lambda data: data.replace(b" ", b"+").replace(b"&", b"%26").replace("ö".encode(), b"%C3%B6"),
    "hexadecimal": lambda data: data.hex().encode(),
    "base64": base64.b64encode,
    "base64 for URLs": base64.urlsafe_b64encode,
    "base64 without padding": lambda data: base64.b64encode(data).rstrip(b"="),
    "base64 after other base64": lambda data: b"ab" + base64.b64encode(b"cde" + data),
    "zlib": zlib.compress,
    "zlib at level 9": lambda data: zlib.compress(data, 9),
    "gzip": gzip.compress,
    "a pickle": _pickled,
    "a compressed pickle, as in Django's caches": lambda data: pickle.dumps(1) + zlib.compress(_pickled(data)),
    "a compressed and signed session": lambda data: signed({"a": data.decode() * 20}, compress=True).encode(),
    "base64 in a message in base64": lambda data: base64.b64encode(b'{"body": "' + base64.b64encode(data) + b'"}'),
    "a pickle's repr": lambda data: repr(data.decode()).encode(),
    "Python's ascii()": lambda data: ascii(data.decode()).encode(),
    "quoted-printable": lambda data: b"=3D" + data.replace(b"\xc3\xb6", b"=C3=B6").replace(b" & ", b" =\n& "),
}


@pytest.mark.sqlite
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_search_finds_a_text_in_each_encoding(form: Callable[[bytes], bytes]) -> None:
    for _ in range(5):
        there, absent = canary(), canary()
        content = b"\x00\xff before, " + form(there.encode()) + b" after \n\x01"
        assert find_texts({"there": there, "absent": absent}, content) == {"there"}


# The scenario


@dataclass
class Portal:
    """A portal with worker and browser, and all pages so far: name, page, and the texts that it may contain."""

    installation: Installation
    browser: Browser
    mails: Path
    pages: list[tuple[str, PortalResponse, frozenset[str]]] = field(default_factory=list)

    def get(self, url: str, *reveals: str) -> PortalResponse:
        return self.add_page(url, self.browser.get(url), reveals)

    def post(self, url: str, *reveals: str, **fields: str) -> PortalResponse:
        return self.add_page(f"{url} {fields}", self.browser.post(url, **fields), reveals)

    def add_page(self, name: str, page: PortalResponse, reveals: tuple[str, ...]) -> PortalResponse:
        self.pages.append((name, page, frozenset(reveals)))
        return page

    def search(self, texts: Mapping[str, str]) -> dict[str, set[str]]:
        """Return the texts found in each place, except in pages that revealed them in their body on purpose."""
        hits: dict[str, set[str]] = defaultdict(set, find_in_files(texts, self._files()))
        hits |= {f"table {name}": find_texts(texts, content) for name, content in tables()}
        hits["broker"] = find_texts(texts, bytes(self.installation.broker.passed))
        for name, page, reveals in self.pages:
            hits[f"head of {name}"] |= find_texts(texts, f"{page.location}\n{page.headers}".encode())
            hits[f"body of {name}"] |= find_texts(texts, page.body.encode()) - reveals
        hits["cookies"] = find_texts(texts, str(self.browser.cookies).encode())
        return {place: names for place, names in hits.items() if names}

    def _files(self) -> Iterator[Path]:
        yield from (path for path in self.installation.folder.rglob("*") if path.is_file())
        for file in database_files():
            yield from (file.with_name(file.name + more) for more in ("", "-wal", "-shm", "-journal"))


def tables() -> Iterator[tuple[str, bytes]]:
    """Yield the binary COPY output of each PostgreSQL table."""
    connection: Any = connections["default"]
    if connection.vendor != "postgresql":
        return
    connection.ensure_connection()
    with connection.cursor() as cursor:
        for name in connection.introspection.table_names(cursor):
            with cursor.copy(f'COPY "{name}" TO STDOUT (FORMAT binary)') as copy:
                yield name, b"".join(map(bytes, copy))


@contextmanager
def running(op: DemoProvider, folder: Path, redis_url: str, *, debug: bool) -> Iterator[Portal]:
    mails = folder / "mails"
    mails.mkdir()
    phi_oidc = {"PROVIDERS": {"default": declaration(op)}, "CLAIMS": CLAIMS}
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.integration.journeys.canary_settings",
        "TEST_DEBUG": str(int(debug)),
        "TEST_MAIL_FOLDER": str(mails),
        "TEST_BACKEND": "tests.integration.journeys.authentication_backends.Listening",
    }
    with relay_to(redis_url) as relay:
        installation = Installation(folder, phi_oidc, relay, environment=environment)
        with installation.portal() as base, installation.worker():
            op.register_client(client(base))
            yield Portal(installation, Browser(base), mails)


def set_claims(op: DemoProvider, values: Mapping[str, str]) -> None:
    """Make the provider return declared and undeclared claims in the ID Token and at UserInfo."""
    undeclared = {"ssn": values["undeclared"], "diagnosis": {"icd": [values["undeclared object"]]}}
    referred = sign_jwt({"alg": "none"}, {"phone_number": values["aggregated"]}, next(iter(op.state.keys.values())))
    at_userinfo = {
        **undeclared,
        "birthdate": values["birthdate"],
        "nickname": values["never stored"],
        "phone_number": values["phone_number"],
        "address": {
            "postal_code": values["postal_code"],
            "country": "SE",
            "street_address": values["undeclared member"],
        },
        "_claim_names": {"phone_number": "elsewhere"},
        "_claim_sources": {"elsewhere": {"JWT": referred}},
    }

    def add_claims(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "userinfo":
            exchange.reply.json = {"sub": exchange.reply.json["sub"], **at_userinfo}
        elif endpoint == "id_token":
            exchange.claims |= {"family_name": values["undeclared in the token"], **undeclared}

    op.mutate = add_claims


def write_control(portal: Portal, control: str) -> set[str]:
    """Write a control value to each searched place in the usual way, and return the places."""
    store(control, "first")
    session = SessionStore()
    session["control"] = [control] * 20
    session.save()
    checkpoint_database_files()
    FileBasedCache(str(portal.installation.folder / "cache"), {}).set("control", {"value": control})
    portal.installation.send("phi_oidc.scrub", control)
    for name in ("portal", "worker"):
        with (portal.installation.folder / f"{name}.log").open("a") as log:
            log.write(f"{json.dumps(control)}\n")
    portal.get(f"/fail/?control={quote(control)}")
    echo = f"/by-accident/?echo={quote(control)}"
    portal.get(echo)
    portal.browser.cookies["control"] = quote_plus(control)
    store(control, "last")
    if connections["default"].vendor == "postgresql":
        stored = {f"table {name}" for name in ("auth_group", "django_session", "phi_oidc_audit_auditevent")}
    else:
        stored = {f"{file.name}{more}" for file in database_files() for more in ("", "-wal")}
    return {*stored, "portal.log", "worker.log", "broker", "cookies", f"head of {echo}", f"body of {echo}"}


def store(control: str, when: str) -> None:
    """Write it to a table of each database."""
    Group.objects.create(name=f"{control} {when}")
    record("access.denied", origin=Origin(), now=clock.now(), outcome="failure", reason=control)


def database_files() -> list[Path]:
    aliases = [alias for alias in databases.ALIASES if connections[alias].vendor == "sqlite"]
    return [Path(connections[alias].settings_dict["NAME"]) for alias in aliases]


def checkpoint_database_files() -> None:
    """Move SQLite's write-ahead logs to the database files. Later writes are in the logs."""
    if database_files():
        for alias in databases.ALIASES:
            with connections[alias].cursor() as cursor:
                cursor.execute("PRAGMA wal_checkpoint(FULL)")


def remove_control(portal: Portal) -> None:
    """Remove the control value from the pages and the browser."""
    del portal.pages[-2:]
    portal.browser.cookies.pop("control")


@pytest.mark.redis
@pytest.mark.parametrize("debug", [True, False], ids=["DEBUG", "production"])
def test_canaries_are_found_only_where_they_were_revealed(
    debug: bool, op: DemoProvider, tmp_path: Path, redis_url: str
) -> None:
    names = ("birthdate", "phone_number", "postal_code", "never stored", "undeclared", "undeclared object")
    values = {name: canary() for name in (*names, "undeclared member", "undeclared in the token", "aggregated")}
    set_claims(op, values)
    # Only the random part is searched, so that an unusual escape of the rest does not hide a hit.
    texts = {name: value.rpartition(" ")[2] for name, value in values.items()}
    with running(op, tmp_path, redis_url, debug=debug) as portal:
        assert portal.add_page("callback", portal.browser.sign_in(op), ()).status == 302
        assert sorted(StoredClaim.objects.values_list("name", flat=True)) == ["address", "birthdate", "phone_number"]

        control = canary()
        places = write_control(portal, control)
        hits = portal.search({"control": control})
        assert places <= hits.keys()
        mails = {path.name for path in portal.mails.iterdir()}
        assert mails <= hits.keys()
        assert mails
        assert any(place.endswith(".djcache") for place in hits)
        assert any(place.startswith("body of /fail/") for place in hits) is debug, (
            "Django's error page shows the variable"
        )
        remove_control(portal)

        visit_pages(portal)
        assert portal.search(texts) == {}, "while claims are stored"
        revealed = [find_texts(texts, page.body.encode()) == reveals for _, page, reveals in portal.pages]
        assert all(revealed), "each page shows exactly the claims for its purpose"

        assert portal.post("/oidc/logout/").status == 200, "the page that leads to the provider"
        assert portal.get("/profile/").status == 302
        assert sorted(StoredClaim.objects.values_list("name", flat=True)) == ["address", "phone_number"]
        portal.installation.set_clock(clock.now() + timedelta(days=2))
        assert portal.installation.run("phi_oidc.scrub")
        assert not StoredClaim.objects.exists()
        assert portal.search(texts) == {}, "after all claims were deleted"


def visit_pages(portal: Portal) -> None:
    """Reveal claims on purpose, and request pages that fail."""
    everything = ("birthdate", "phone_number", "postal_code")
    assert portal.get("/profile/").status == 200
    assert portal.post("/profile/", "birthdate", purpose="TREAT").status == 200
    assert portal.post("/profile/", "phone_number", "postal_code", purpose="HOPERAT").status == 200
    assert portal.post("/profile/", *everything, purpose="PATRQT").status == 200
    assert portal.post("/profile/", purpose="HMARKT").status == 403
    assert portal.post("/profile/", purpose="").status == 400
    assert portal.get("/by-tag/", "birthdate").status == 200
    assert portal.get("/streamed/", "birthdate").status == 200
    for path in ("/fail/?reveal=1", "/by-tag/?fail=1", "/by-accident/?json=1"):
        assert portal.get(path).status == 500
    assert portal.get("/by-accident/").status == 200
    assert portal.get("/nowhere/").status == 404
    assert portal.get("/oidc/callback/?state=x&code=y").status == 403
    assert portal.post("/profile/", purpose="PATRQT", csrfmiddlewaretoken="another").status == 403
    assert len(list(portal.mails.iterdir())) > 1, "errors are reported by mail"
    assert all(page.join_header_values("Cache-Control") == "no-store" for _, page, reveals in portal.pages if reveals)
    log = (portal.installation.folder / "portal.log").read_text()
    assert "Failed lookup for key [nowhere]" in log, "Django has logged the template contexts"
    assert "Undeclared claims: {}" in log
    assert django_settings.SESSION_COOKIE_NAME in portal.browser.cookies

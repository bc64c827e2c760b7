"""The how-to page on retention: its Vault client, with a server that responds like Vault."""

import json
import runpy
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.retention import destroy_unused_keys, scrub_user
from django_phi_oidc.contrib.retention_keys.key_names import person_key_name
from django_phi_oidc.contrib.retention_keys.key_store import RetentionKeyStore
from django_phi_oidc.errors import KeyMissing, Undecryptable
from tests.support.claims_fixtures import DAY, NOW, Person, _declared, make_person  # noqa: F401 -- fixtures
from tests.support.http_server import served_by
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "how-to" / "retention.md").read_text()
NAME = "20261124-86400"


class Vault(BaseHTTPRequestHandler):
    """The part of the KV engine, version 2, that the page uses."""

    secrets: dict[str, Any]

    def answer(self) -> None:
        kind, _, name = self.path.removeprefix("/v1/secret/").partition("/phi-retention")
        name, body = name.lstrip("/"), self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers["X-Vault-Token"] != "a token":
            return self.send_json(403)
        match self.command, kind, name in self.secrets:
            case "GET", "data", True:
                return self.send_json(200, {"data": {"data": self.secrets[name]}})
            case "POST", "data", False:
                data = json.loads(body)
                assert data["options"] == {"cas": 0}
                self.secrets[name] = data["data"]
                return self.send_json(200, {"data": {"version": 1}})
            case "POST", "data", True:
                return self.send_json(400, {"errors": ["check-and-set parameter did not match the current version"]})
            case "DELETE", "metadata", _:
                self.secrets.pop(name, None)
                return self.send_json(204)
            case "LIST", "metadata", _ if self.secrets:
                # Like a folder: a name with a slash is listed as its first part.
                names = {first + slash for first, slash, _ in (secret.partition("/") for secret in self.secrets)}
                return self.send_json(200, {"data": {"keys": sorted(names)}})
        return self.send_json(404, {"errors": []})

    def __getattr__(self, name: str) -> Any:
        return self.answer if name.startswith("do_") else super().__getattribute__(name)

    def send_json(self, status: int, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: Any) -> None:
        """Write no log."""


@pytest.fixture
def vault() -> Iterator[str]:
    with served_by(type("Fresh", (Vault,), {"secrets": {}})) as address:
        yield address


@pytest.fixture
def client() -> Callable[..., RetentionKeyStore]:
    """Return the class that the page names."""
    assert "example_project/portal/vault_retention_keys.py" in PAGE
    names = runpy.run_path(str(ROOT / "example_project" / "portal" / "vault_retention_keys.py"))
    return names["VaultRetentionKeys"]


def test_vault_keeps_a_key_until_it_is_destroyed(vault: str, client: Callable[..., RetentionKeyStore]) -> None:
    keys = client(vault, "a token")
    assert (list(keys.names()), keys.get(NAME)) == ([], None)
    key = keys.create(NAME)
    assert (len(key), keys.create(NAME), keys.get(NAME), list(keys.names())) == (32, key, key, [NAME])
    keys.destroy(NAME)
    keys.destroy(NAME)
    assert (list(keys.names()), keys.get(NAME)) == ([], None)


def test_vault_errors_raise_key_missing(vault: str, client: Callable[..., RetentionKeyStore]) -> None:
    for keys in (client(vault, "another token"), client("http://127.0.0.1:9", "a token")):
        for method in (keys.get, keys.create, keys.destroy):
            with pytest.raises(KeyMissing):
                method(NAME)
        with pytest.raises(KeyMissing):
            keys.names()


def test_claims_are_undecryptable_after_key_destruction_in_vault(
    vault: str,
    client: Callable[..., RetentionKeyStore],
    settings: Any,
    make_person: Callable[..., Person],
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": client(vault, "a token")})
    person = make_person()
    person.store({"birthdate": "1990-05-17"})
    copy = StoredClaim.objects.get()
    assert reveal(person.actor(), person.user, "birthdate", purpose="TREAT") == "1990-05-17"
    StoredClaim.objects.all().delete()
    assert destroy_unused_keys(now=NOW + 2 * DAY) == ["20261124-session"]
    copy.save(force_insert=True)
    with pytest.raises(Undecryptable):
        reveal(person.actor(), person.user, "birthdate", purpose="TREAT")


def test_g7_erasure_destroys_the_key_of_the_person_in_vault(
    vault: str,
    client: Callable[..., RetentionKeyStore],
    settings: Any,
    make_person: Callable[..., Person],
) -> None:
    keys = client(vault, "a token")
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": keys})
    erased, other = make_person(), make_person()
    names = []
    for person in (erased, other):
        person.store({"birthdate": "1990-05-17"})
        names.append(person_key_name(person.subject.retention_key_id))
    assert sorted(keys.names()) == ["20261124-session", "person/"]
    copies = list(StoredClaim.objects.filter(subject=erased.subject))
    scrub_user(erased.user, origin=erased.origin(), now=NOW)
    assert destroy_unused_keys(now=NOW) == names[:1]
    assert [keys.get(name) is None for name in names] == [True, False]
    StoredClaim.objects.bulk_create(copies)
    with pytest.raises(Undecryptable):
        reveal(erased.actor(), erased.user, "birthdate", purpose="PATRQT")
    assert reveal(other.actor(), other.user, "birthdate", purpose="PATRQT") == "1990-05-17"

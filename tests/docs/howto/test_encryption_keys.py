"""The how-to page on encryption keys: its code with services that respond, hang and fail, and its commands."""

import base64
import json
import re
import runpy
import shlex
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from django_phi_oidc._internal import clock
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import KeyMissing
from django_phi_oidc.project_settings import read_variable
from django_phi_oidc.sessions.models import PendingRevocation, RevocationStatus
from tests.settings import key
from tests.support.phi_oidc_settings import override_phi_oidc

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "how-to" / "encryption-keys.md").read_text()
OLD, NEW = key("test encryption key of the page, old"[:32]), key("new: test encryption key of page"[:32])
TOKEN = "s.a-token-for-tests"
KEY_NAME = "projects/portal/locations/europe-west6/keyRings/portal/cryptoKeys/phi"
CONTEXT = ["table", "column", "7"]
Answer = Callable[["Service", BaseHTTPRequestHandler], tuple[int, Any]]


def block(name: str) -> str:
    match = re.search(rf"<!-- tested: {name} -->\n *```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert match, name
    return "\n".join(line.removeprefix("   ") if match[1].startswith("   ") else line for line in match[1].splitlines())


@dataclass
class Service:
    """Stands in for Vault, and for a KMS with its metadata server."""

    base: str = ""
    answer: Answer | None = None
    """Replaces the correct response."""
    asked: list[str] = field(default_factory=list)

    def answer_to(self, request: BaseHTTPRequestHandler) -> tuple[int, Any]:
        self.asked.append(request.path)
        if self.answer is not None:
            return self.answer(self, request)
        if request.path == "/v1/secret/data/phi-oidc":
            return vault(request)
        if request.path.startswith("/computeMetadata/"):
            known = request.headers["Metadata-Flavor"] == "Google"
            return (200, {"access_token": TOKEN, "expires_in": 3599, "token_type": "Bearer"}) if known else (403, {})
        return kms(request)


def vault(request: BaseHTTPRequestHandler) -> tuple[int, Any]:
    """Respond as KV version 2 does."""
    if request.headers["X-Vault-Token"] != TOKEN:
        return 403, {"errors": ["permission denied"]}
    return 200, {"data": {"data": {"encryption_keys": f"{NEW},{OLD}"}, "metadata": {"version": 2}}}


def kms(request: BaseHTTPRequestHandler) -> tuple[int, Any]:
    """Unwrap a key of `wrapped`."""
    if request.path != f"/v1/{KEY_NAME}:decrypt" or request.headers["Authorization"] != f"Bearer {TOKEN}":
        return 403, {"error": {"code": 403, "status": "PERMISSION_DENIED"}}
    body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
    plain = base64.b64decode(body["ciphertext"])[::-1]
    return 200, {"plaintext": base64.b64encode(plain).decode(), "usedPrimary": True, "protectionLevel": "HSM"}


def wrapped(text: str) -> str:
    return base64.b64encode(text.encode()[::-1]).decode()


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Return the service, and configure it in the environment of the documented code."""
    created = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = created.answer_to(self)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            if status == 302:
                self.send_header("Location", f"{created.base}/v1/secret/data/phi-oidc")
            self.send_header("Content-Length", str(len(content)))
            # The client of a hanging response has disconnected.
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(content)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *args: Any) -> None:
            """Log nothing."""

    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (tmp_path / "wrapped").write_text(f"{wrapped(NEW)}\n{wrapped(OLD)}\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        created.base = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("VAULT_ADDR", created.base)
        monkeypatch.setenv("VAULT_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("GCE_METADATA_HOST", created.base.removeprefix("http://"))
        monkeypatch.setenv("PHI_KMS_URL", f"{created.base}/v1")
        monkeypatch.setenv("PHI_KMS_KEY", KEY_NAME)
        monkeypatch.setenv("PHI_WRAPPED_KEYS", str(tmp_path / "wrapped"))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield created
        server.shutdown()
        thread.join()


@pytest.fixture
def code(service: Service) -> Iterator[dict[str, Any]]:
    """Return the names of the module that the page refers to."""
    assert "example_project/portal/key_services.py" in PAGE
    names = runpy.run_path(str(ROOT / "example_project" / "portal" / "key_services.py"))
    yield names
    names["http"].clear()


@pytest.mark.parametrize("source", ["setting", "environment", "file"])
def test_each_documented_key_source_returns_the_list(
    source: str, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    match = re.search(rf"^\| {source} \| `(.*?)`", PAGE, re.MULTILINE)
    assert match
    file = tmp_path / "keys"
    file.write_text(f"{NEW}\n{OLD}\n")
    monkeypatch.setenv("PHI_ENCRYPTION_KEYS", f"{NEW},{OLD}")
    names = {"read_variable": read_variable, "Path": Path}
    declared = match[1].replace("/run/secrets/phi-encryption-keys", str(file)).replace('"…", "…"', f'"{NEW}", "{OLD}"')
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **eval(f"{{{declared}}}", names))
    assert [base64.urlsafe_b64encode(key.material).decode() for key in keyring.get_keys("encryption")] == [
        NEW,
        OLD,
    ]


def test_documented_command_generates_a_key(settings: Any) -> None:
    (command,) = block("key").splitlines()
    words = shlex.split(command.removeprefix("$ "))
    created = subprocess.run(
        [sys.executable, *words[1:]], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": created})
    assert len(keyring.get_keys("encryption")) == 1


@pytest.mark.parametrize("source", ["vault", "kms"])
def test_keys_from_a_service_encrypt_and_decrypt_and_are_fetched_once(
    source: str, service: Service, code: dict[str, Any], settings: Any
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [OLD]})
    sealed_before = keyring.encrypt("secret", context=CONTEXT)
    declared = {**settings.PHI_OIDC}
    exec(block(f"{source}-setting"), {**code, "PHI_OIDC": declared})
    settings.PHI_OIDC = declared
    sealed = keyring.encrypt("secret", context=CONTEXT)
    asked = len(service.asked)
    assert asked == {"vault": 1, "kms": 3}[source]
    assert keyring.decrypt(sealed, context=CONTEXT) == "secret"
    assert keyring.decrypt(sealed_before, context=CONTEXT) == "secret"
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [NEW]})
    assert keyring.decrypt(sealed, context=CONTEXT) == "secret"
    assert len(service.asked) == asked


FAULTS: dict[str, Answer] = {
    "forbidden": lambda service, request: (403, {"errors": ["permission denied"]}),
    "sealed": lambda service, request: (503, {"errors": ["Vault is sealed"]}),
    "redirect": lambda service, request: (302, {}),
    "no JSON": lambda service, request: (200, b"<html>"),
    "another shape": lambda service, request: (200, {"data": None}),
    "nothing in it": lambda service, request: (200, {}),
    "a list": lambda service, request: (200, []),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("source", ["vault", "kms"])
def test_service_without_keys_is_refused_and_not_called_again_immediately(
    source: str, fault: str, service: Service, code: dict[str, Any], settings: Any
) -> None:
    cached = code["Cached"](code[f"from_{source}"], retry=0.1)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": cached})
    service.answer = FAULTS[fault]
    for _ in range(3):
        with pytest.raises(KeyMissing, match="does not answer"):
            keyring.get_keys("encryption")
    assert len(service.asked) == 1
    service.answer = None
    time.sleep(0.11)
    assert len(keyring.get_keys("encryption")) == 2


def test_service_with_a_wrong_token_or_a_missing_file_is_refused(
    service: Service, code: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("another")
    (tmp_path / "wrapped").unlink()
    for source in ("vault", "kms"):
        with pytest.raises(KeyMissing):
            code["Cached"](code[f"from_{source}"])()


def test_hanging_service_is_refused_after_one_second(service: Service, code: dict[str, Any]) -> None:
    release = threading.Event()
    service.answer = lambda service, request: (200, release.wait(10))
    began = time.monotonic()
    with pytest.raises(KeyMissing):
        code["Cached"](code["from_vault"])()
    assert 0.9 < time.monotonic() - began < 3
    release.set()


def test_cached_keys_bridge_an_outage_of_the_service_for_a_limited_time(service: Service, code: dict[str, Any]) -> None:
    cached = code["Cached"](code["from_vault"], fresh=0.05, most=1.5, retry=0.05)
    assert cached() == f"{NEW},{OLD}"
    service.answer = FAULTS["sealed"]
    time.sleep(0.1)
    assert cached() == f"{NEW},{OLD}"
    assert len(service.asked) == 2
    time.sleep(1.5)
    with pytest.raises(KeyMissing):
        cached()
    service.answer = None
    time.sleep(0.1)
    assert cached() == f"{NEW},{OLD}"


def test_new_list_is_fetched_when_the_old_one_is_stale(service: Service, code: dict[str, Any]) -> None:
    cached = code["Cached"](code["from_vault"], fresh=0.1)
    assert cached() == f"{NEW},{OLD}"
    service.answer = lambda service, request: (200, {"data": {"data": {"encryption_keys": NEW}}})
    assert cached() == f"{NEW},{OLD}"
    time.sleep(0.11)
    assert cached() == NEW


def test_concurrent_threads_fetch_the_list_once_and_none_waits_for_a_refresh(
    service: Service, code: dict[str, Any]
) -> None:
    cached = code["Cached"](code["from_vault"], fresh=0.1)

    def slowly(service: Service, request: BaseHTTPRequestHandler) -> tuple[int, Any]:
        time.sleep(0.3)
        return vault(request)

    service.answer = slowly
    with ThreadPoolExecutor(8) as pool:
        assert {future.result() for future in [pool.submit(cached) for _ in range(8)]} == {f"{NEW},{OLD}"}
        assert len(service.asked) == 1
        time.sleep(0.11)
        refreshing = pool.submit(cached)
        while len(service.asked) == 1:
            time.sleep(0.001)
        began = time.monotonic()
        assert cached() == f"{NEW},{OLD}"
        assert time.monotonic() - began < 0.2
        refreshing.result()
    assert len(service.asked) == 2


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_documented_key_change_works(settings: Any) -> None:
    now, declared = clock.now(), settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"encryption": [OLD]})
    created = {"token": "secret", "status": RevocationStatus.DONE, "due_at": now, "created_at": now}
    for _ in range(3):
        PendingRevocation.objects.create(id=uuid.uuid4(), **created)
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"encryption": [NEW, OLD]})
    new, old = (key.id for key in keyring.get_keys("encryption"))
    for name in ("before", "rotate", "after"):
        (command, *expected) = block(name).replace("4f2c9d1e", new).replace("a07b51c3", old).splitlines()
        out = StringIO()
        call_command(*command.removeprefix("$ python manage.py ").split(), stdout=out)
        printed = out.getvalue().splitlines()
        if expected[-1] == "…":
            expected = expected[:-1]
            assert printed[len(expected)].startswith("KEYS['subject']"), name
            printed = printed[: len(expected)]
        assert printed == expected, name
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"encryption": [NEW]})
    field_of_token: Any = PendingRevocation._meta.get_field("token")
    assert {field_of_token.decrypt(row) for row in PendingRevocation.objects.all()} == {"secret"}

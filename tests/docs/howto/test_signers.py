"""The signers of the page sign: with a token, with a Vault over HTTP, and with a stand-in for the library of AWS."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings
from django.test import override_settings

from django_phi_oidc.audit.log.pkcs11_uri import parse_pkcs11_uri
from django_phi_oidc.audit.log.signing_keys import get_signing_key
from django_phi_oidc.errors import KeyMissing
from tests.support.audit_log import KEY
from tests.support.http_server import served_by
from tests.support.manual_blocks import block
from tests.support.phi_oidc_settings import override_phi_oidc

PAGE = "signers"


def sign(source: Any) -> tuple[Ed25519PublicKey, bytes]:
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": source})):
        key = get_signing_key()
    return key.public_key(), key.sign(b"data")


def read_setting(name: str) -> Any:
    example: dict[str, Any] = {"PHI_OIDC": {"KEYS": {}}}
    exec(block(PAGE, name), example)
    return example["PHI_OIDC"]["KEYS"]["audit_signing"]


def create_module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Make the code of a block the module portal.signers."""
    module = ModuleType("portal.signers")
    exec(block(PAGE, name), vars(module))
    monkeypatch.setitem(sys.modules, "portal", ModuleType("portal"))
    monkeypatch.setitem(sys.modules, "portal.signers", module)
    return module


class Vault(BaseHTTPRequestHandler):
    """The two requests of the transit engine."""

    token = "s.token"

    def do_GET(self) -> None:
        encoded = base64.b64encode(KEY.public_key().public_bytes_raw()).decode()
        self.answer("/v1/transit/keys/audit-log", {"type": "ed25519", "keys": {"1": {"public_key": encoded}}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert body["key_version"] == 1
        signature = base64.b64encode(KEY.sign(base64.b64decode(body["input"]))).decode()
        self.answer("/v1/transit/sign/audit-log", {"signature": f"vault:v1:{signature}"})

    def answer(self, path: str, data: dict[str, Any]) -> None:
        is_right = self.path == path and self.headers["X-Vault-Token"] == self.token
        content = json.dumps({"data": data}).encode()
        self.send_response(200 if is_right else 403)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Write nothing."""


@pytest.mark.parametrize(("token", "is_right"), [("s.token", True), ("s.other", False)])
def test_vault_signs(monkeypatch: pytest.MonkeyPatch, token: str, is_right: bool) -> None:
    with served_by(Vault) as address:
        monkeypatch.setenv("VAULT_ADDR", address)
        monkeypatch.setenv("VAULT_TOKEN", token)
        create_module("vault", monkeypatch)
        if is_right:
            public_key, signature = sign(read_setting("dotted"))
            public_key.verify(signature, b"data")
        else:
            with pytest.raises(KeyMissing, match="the signer has no public key"):
                sign(read_setting("dotted"))


def test_aws_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def get_public_key(self, **options: Any) -> dict[str, bytes]:
            assert options == {"KeyId": "alias/audit-log"}
            return {"PublicKey": KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)}

        def sign(self, **options: Any) -> dict[str, bytes]:
            assert (options["MessageType"], options["SigningAlgorithm"]) == ("RAW", "ED25519_SHA_512")
            return {"Signature": KEY.sign(options["Message"])}

    stand_in: dict[str, dict[str, Callable[..., Any]]] = {
        "boto3": {"client": lambda service, config: Client()},
        "botocore": {},
        "botocore.config": {"Config": dict},
    }
    for name, members in stand_in.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    public_key, signature = sign(create_module("aws", monkeypatch).KMSSigner)
    public_key.verify(signature, b"data")


@pytest.mark.softhsm
def test_token_is_made_and_signs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.support.softhsm import create_token  # noqa: PLC0415 -- needs the marker

    monkeypatch.setenv("SOFTHSM2_CONF", "")
    uri = create_token(tmp_path / "hsm")
    pin = f"file:{tmp_path / 'hsm' / 'pin'}"
    declared = read_setting("pkcs11").replace("file:/etc/portal/hsm-pin", pin)
    assert parse_pkcs11_uri(declared) == parse_pkcs11_uri(uri)
    public_key, signature = sign(declared)
    public_key.verify(signature, b"data")
    # The same command of the page makes another token. pkcs11-tool is not in the package of SoftHSM.
    commands = [line.removeprefix("$ ") for line in block(PAGE, "softhsm").splitlines()]
    subprocess.run(commands[0].split(), check=True, capture_output=True, timeout=30)
    assert commands[1].startswith("pkcs11-tool ")
    assert "--key-type EC:edwards25519 --label audit-log" in commands[1]

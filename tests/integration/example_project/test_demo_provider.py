"""The demo provider knows the portal under the redirect URIs and with the proof that the settings declare."""

import json
import os
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.management.base import CommandError
from portal.demo.browser import Browser
from portal.demo.hostile_provider import ISSUED, Control
from portal.demo.processes import Processes
from portal.demo.services import OURS, free_port
from portal.management.commands.demo_provider import Command, client_of

from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.example_project.conftest import ROOT

pytestmark = pytest.mark.sqlite
PORTAL = "http://127.0.0.1:8000"


def test_demo_provider_is_the_declared_one_that_is_named(tmp_path: Path) -> None:
    issuer = f"http://127.0.0.1:{free_port()}"
    staff = {"issuer": issuer, "client_id": "phi-staff", "client_secret": "demo", "allow_loopback_http": True}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environ |= {
        "DJANGO_DEBUG": "1",
        "PORTAL_VAR_DIR": str(tmp_path),
        "OIDC_PROVIDERS_JSON": json.dumps({"staff": staff}),
    }
    with Processes(directory=ROOT, logs=tmp_path / "log", environ=environ) as processes:
        processes.run("keys", "manage.py", "phi_oidc", "keys", "generate")
        processes.python("provider", "manage.py", "demo_provider", "--provider", "staff")
        processes.wait_until_answers("provider", f"{issuer}/.well-known/openid-configuration")
        asked = {
            "client_id": "phi-staff",
            "response_type": "code",
            "scope": "openid",
            "code_challenge": "x" * 43,
            "code_challenge_method": "S256",
        }
        for path, status in (
            ("/oidc/staff/callback/", 200),
            ("/oidc/callback/", 200),
            ("/oidc/default/callback/", 400),
        ):
            query = urlencode({**asked, "redirect_uri": PORTAL + path})
            assert Browser().open(f"{issuer}/authorize?{query}").status == status


def test_demo_provider_of_a_name_that_is_not_declared_is_refused() -> None:
    with pytest.raises(CommandError, match="no provider nobody"):
        Command().handle(provider="nobody", portal=None)


def test_client_with_keys_is_registered_with_them_and_has_no_control() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    keyed = {"token_endpoint_auth_method": "private_key_jwt", "client_keys": pem.decode()}
    declared = parse_provider("default", {"issuer": "http://127.0.0.1:8765", "client_id": "phi-portal", **keyed})
    client = client_of([PORTAL], declared)
    assert client.jwks is not None
    assert [key["kid"] for key in client.jwks["keys"]] == [declared.client_keys[0].kid]
    assert client.token_endpoint_auth_methods == ("private_key_jwt",)
    control = Control(DemoProvider([client]), client)
    for given, status in (("cGhpLXBvcnRhbDo=", 401), ("", 401)):
        order = MutableExchange(method="POST", path=ISSUED, headers={"authorization": f"Basic {given}"})
        assert control.answer(order).status == status

"""The demo provider registers the portal with the redirect URIs and client authentication of the settings."""

import json
import os
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.management.base import CommandError
from portal.demo.browser import Browser
from portal.demo.hostile_provider import ISSUED_PATH, ProviderControl
from portal.demo.processes import Processes
from portal.demo.services import VARIABLE_PREFIXES, find_free_port
from portal.management.commands.demo_provider import Command, create_registration

from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.example_project.conftest import ROOT

pytestmark = pytest.mark.sqlite
PORTAL = "http://127.0.0.1:8000"


def test_demo_provider_serves_the_named_provider(tmp_path: Path) -> None:
    issuer = f"http://127.0.0.1:{find_free_port()}"
    staff = {"issuer": issuer, "client_id": "phi-staff", "client_secret": "demo", "allow_loopback_http": True}
    environ = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLE_PREFIXES)}
    environ |= {
        "DJANGO_DEBUG": "1",
        "PORTAL_VAR_DIR": str(tmp_path),
        "OIDC_PROVIDERS_JSON": json.dumps({"staff": staff}),
    }
    with Processes(directory=ROOT, logs=tmp_path / "log", environ=environ) as processes:
        processes.run("keys", "manage.py", "phi_oidc", "keys", "generate")
        processes.start("provider", "manage.py", "demo_provider", "--provider", "staff")
        processes.wait_for_url("provider", f"{issuer}/.well-known/openid-configuration")
        parameters = {
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
            query = urlencode({**parameters, "redirect_uri": PORTAL + path})
            assert Browser().open(f"{issuer}/authorize?{query}").status == status


def test_demo_provider_with_an_undeclared_name_is_refused() -> None:
    with pytest.raises(CommandError, match="no provider nobody"):
        Command().handle(provider="nobody", portal=None)


def test_client_with_keys_is_registered_with_them_and_cannot_send_orders() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    options = {"token_endpoint_auth_method": "private_key_jwt", "client_keys": pem.decode()}
    declaration = parse_provider("default", {"issuer": "http://127.0.0.1:8765", "client_id": "phi-portal", **options})
    client = create_registration([PORTAL], declaration)
    assert client.jwks is not None
    assert [key["kid"] for key in client.jwks["keys"]] == [declaration.client_keys[0].kid]
    assert client.token_endpoint_auth_methods == ("private_key_jwt",)
    control = ProviderControl(DemoProvider([client]), client)
    for credentials, status in (("cGhpLXBvcnRhbDo=", 401), ("", 401)):
        exchange = MutableExchange(method="POST", path=ISSUED_PATH, headers={"authorization": f"Basic {credentials}"})
        assert control.handle_control_request(exchange).status == status

"""One process of spid_cie_oidc for each test: a trust anchor and a provider, with the portal as a member."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.config.client_keys import parse_client_keys
from django_phi_oidc.contrib.doctor.known_providers import PROVIDERS_BY_SLUG
from tests.integration.interop.conftest import JWT
from tests.support.client_keys import create_private_key_pem
from tests.support.external_tools import PARTS
from tests.support.log_capture import capture_all_logs
from tests.support.provider_recipes import build_declaration
from tests.support.tls import CertificateAuthority

PROVIDER = Path(__file__).with_name("provider.py")


@dataclass(frozen=True, kw_only=True)
class SpidCie:
    """A running federation: the origin of its trust anchor and provider, and the portal's declaration by the recipe."""

    origin: str
    options: dict[str, Any]

    @property
    def issuer(self) -> str:
        return str(self.options["issuer"])


@pytest.fixture(autouse=True)
def _logs_hold_no_secret() -> Iterator[None]:
    """Search the lines that a test logs for tokens, but those of its own browser, whose URL has the signed request."""
    with capture_all_logs() as log:
        yield
    assert JWT.findall("\n".join(line for line in log.lines if "/authorization?" not in line)) == []


@pytest.fixture
def start_federation(
    authority: CertificateAuthority, certificate: Path, portal: str, tmp_path: Path
) -> Callable[..., Any]:
    """start_federation(client_id, listed_pem): a context with the portal as a member; listed_pem: another key."""

    @contextmanager
    def start(client_id: str = "", *, listed_pem: str = "") -> Iterator[SpidCie]:
        client_id = client_id or f"{portal}/oidc"
        federation_pem = create_private_key_pem("EC")
        (listed,) = parse_client_keys("keys", listed_pem or federation_pem)
        recipe = PROVIDERS_BY_SLUG["spid-cie"].recipe
        assert recipe
        command = [PARTS["spid_cie"]().where, PROVIDER, tmp_path, certificate]
        # It fetches the portal's entity configuration, and computes expiries in the local time of the process.
        env = {**os.environ, "SSL_CERT_FILE": str(authority.certificate_path), "TZ": "UTC"}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env) as process:
            try:
                assert process.stdin is not None
                assert process.stdout is not None
                anchor = json.loads(process.stdout.readline())
                member = {"sub": client_id, "jwks": {"keys": [listed.build_public_jwk("ES256")]}}
                process.stdin.write(json.dumps(member) + "\n")
                process.stdin.flush()
                assert process.stdout.readline() == "ready\n"
                origin = f"https://localhost:{anchor['port']}"
                yield SpidCie(
                    origin=origin,
                    options=build_declaration(
                        recipe,
                        issuer=f"{origin}/oidc/op",
                        client_id=client_id,
                        ca_bundle=str(authority.certificate_path),
                        federation={
                            "trust_anchor": f"{origin}/ta",
                            "trust_anchor_keys": anchor["jwks"],
                            "authority_hints": [f"{origin}/ta"],
                            "keys": federation_pem,
                            "organization_name": "Clinic",
                            "contacts": ["ops@clinic.example"],
                        },
                    ),
                )
            finally:
                process.kill()

    return start

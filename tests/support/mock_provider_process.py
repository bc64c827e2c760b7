"""The mock provider over TLS, in a process with the real clock, controlled as the npm oidc-provider is."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django_phi_oidc.testing.mock_provider import Client, DemoProvider, TLSFiles, demo_accounts
from tests.support.certified_provider import ProviderProcess

ROOT = Path(__file__).resolve().parents[2]
CLIENT_FIELDS = ("client_id", "client_secret", "redirect_uris")
OPTIONAL_FIELDS = ("post_logout_redirect_uris", "backchannel_logout_uri", "grant_types")


class MockProvider(ProviderProcess):
    """The mock provider. It introspects a token only for the client that the token was issued to."""

    introspection_path = "/introspect"
    introspecting_client = "portal"


@contextmanager
def mock_provider(*, certificate: Path, ca_bundle: str) -> Iterator[MockProvider]:
    """Run the provider. certificate: a PEM file with the key. ca_bundle: also for the logout tokens that it sends."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.mock_provider_process", str(certificate)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "SSL_CERT_FILE": ca_bundle},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield MockProvider(process, ca_bundle=ca_bundle)
        finally:
            process.kill()


def serve(certificate: str) -> None:
    """Run the provider, and answer the commands on standard input."""
    files = TLSFiles(certificate, certificate)
    provider = DemoProvider(accounts=demo_accounts(), tls=files, host="localhost", signing_alg="PS256")
    earlier_count = 0
    with provider.running():
        answer({"issuer": provider.issuer, "code": ""})
        for line in sys.stdin:
            message = json.loads(line)
            if message["command"] == "configure":
                earlier_count = len(provider.tokens)
                # Others only introspect.
                for registered in filter(lambda metadata: metadata["redirect_uris"], message["clients"]):
                    provider.register_client(build_client(registered))
                answer({})
            else:
                answer({"tokens": [(token.kind, token.value) for token in provider.tokens[earlier_count:]]})


def build_client(metadata: dict[str, Any]) -> Client:
    """Return the client with these metadata of RFC 7591."""
    optional = {name: metadata[name] for name in OPTIONAL_FIELDS if name in metadata}
    return Client(*(metadata[name] for name in CLIENT_FIELDS), **optional)


def answer(members: dict[str, Any]) -> None:
    """Print a line of JSON."""
    print(json.dumps(members), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])

"""The npm oidc-provider as a process of its own, told by lines of JSON what to be and what happened."""

import base64
import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.support.external_tools import INTEROP

SECRET = "s3cret & more:/+%"
AUDITOR = {
    "client_id": "auditor",
    "client_secret": SECRET,
    "grant_types": [],
    "response_types": [],
    "redirect_uris": [],
}
"""A client that signs nobody in: it asks which tokens are alive."""


class CertifiedProvider:
    """A running provider, and what a test asks of it."""

    def __init__(self, process: "subprocess.Popen[str]", *, ca_bundle: str) -> None:
        self._process = process
        self._context = ssl.create_default_context(cafile=ca_bundle)
        self.ca_bundle = ca_bundle
        told = self._answer()
        self.issuer: str = told["issuer"]
        self.code: str = told["code"]
        """What the device of a person shows."""

    def configure(self, *clients: Mapping[str, Any], **options: Any) -> None:
        """Serve these clients, as provider.mjs explains the options. Signing keys and what was issued stay."""
        self._tell("configure", clients=[AUDITOR, *clients], **options)

    def rotate(self) -> None:
        """Put new signing keys into the place of the old ones."""
        self._tell("rotate")

    def forget_client_keys(self) -> None:
        """Fetch the clients' keys anew when they are needed next."""
        self._tell("forget_client_keys")

    def age_sessions(self, seconds: int) -> None:
        """Make it so long ago that people signed in here."""
        self._tell("age_sessions", seconds=seconds)

    def requests(self, path: str) -> int:
        """Return how many requests for that path there were since `configure`, by whatever method."""
        return [line.partition(" ")[2] for line in self._observed("requests")].count(path)

    def fetched(self, url: str) -> int:
        """Return how often the provider itself has fetched that address since `configure`."""
        return self._observed("fetched").count(url)

    def assertions(self, path: str) -> list[str]:
        """Return the algorithms of the client assertions that were accepted at that path since `configure`."""
        return [alg for at, alg in self._observed("assertions") if at == path]

    def tokens(self) -> list[tuple[str, str]]:
        """Return kind and value of every token that was issued since `configure`, oldest first."""
        return [(kind, value) for kind, value in self._observed("tokens")]

    def alive(self) -> list[str]:
        """Return the kinds of those tokens that introspection calls active, in the order of their issue."""
        return [kind for kind, value in self.tokens() if self.introspect(value)["active"]]

    def introspect(self, token: str) -> dict[str, Any]:
        """Ask the provider about a token, over TLS and by code that is not ours. Spec: RFC 7662."""
        basic = base64.b64encode(f"{AUDITOR['client_id']}:{urlencode({'': SECRET})[1:]}".encode()).decode()
        request = urllib.request.Request(
            f"{self.issuer}/token/introspection",
            data=urlencode({"token": token}).encode(),
            headers={"Authorization": f"Basic {basic}"},
        )
        with urllib.request.urlopen(request, context=self._context, timeout=20) as response:
            return dict(json.load(response))

    def _observed(self, what: str) -> list[Any]:
        return list(self._tell("observed")[what])

    def _tell(self, command: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "The provider has ended."}
        assert "error" not in answer, answer["error"]
        return dict(answer)


@contextmanager
def certified_provider(node: str, *, certificate: Path, ca_bundle: str) -> Iterator[CertifiedProvider]:
    """Run the provider. certificate: a PEM file that holds the key as well. ca_bundle: also for what it fetches."""
    with subprocess.Popen(
        [node, str(INTEROP / "provider.mjs"), str(certificate)],
        env={**os.environ, "NODE_EXTRA_CA_CERTS": ca_bundle},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield CertifiedProvider(process, ca_bundle=ca_bundle)
        finally:
            process.kill()

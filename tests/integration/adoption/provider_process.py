"""An OpenID Provider with twenty users, in a process of its own: `provider_process()`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django_phi_oidc.testing.mock_provider import Account, Client, DemoProvider
from tests.integration.adoption.wheel_environments import ROOT, clean_environment

SECRET = "s3cret & more:/+%"
PERSONS = tuple(f"person{number:02}" for number in range(1, 21))


@dataclass(frozen=True, slots=True)
class Provider:
    """The running provider. Its clients are those that were registered."""

    issuer: str
    process: "subprocess.Popen[str]"

    def register(self, client_id: str, portal: str) -> None:
        """Register a portal with the URLs of each library. The client of a project stays the same in a migration."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"client_id": client_id, "portal": portal}) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "registered\n"


def password_of(person: str) -> str:
    return f"password of {person}"


def email_of(person: str) -> str:
    return f"{person}@example.org"


@contextmanager
def provider_process() -> Iterator[Provider]:
    """Run the provider until the block ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.integration.adoption.provider_process"],
        cwd=ROOT,
        env=clean_environment() | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield Provider(process.stdout.readline().strip(), process)
        finally:
            process.kill()


def serve() -> None:
    """Print the issuer, and register the clients that the lines of standard input describe."""
    claims: dict[str, dict[str, Any]] = {
        person: {"email": email_of(person), "email_verified": True, "birthdate": "1984-03-09"} for person in PERSONS
    }
    op = DemoProvider(accounts=[Account(name, password_of(name), claims=known) for name, known in claims.items()])
    with op.running():
        print(op.issuer, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            op.register_client(build_client(**asked))
            print("registered", flush=True)


def build_client(*, client_id: str, portal: str) -> Client:
    """Return the registration. Neither mozilla-django-oidc nor django-allauth sends a PKCE challenge by default."""
    return Client(
        client_id,
        SECRET,
        [f"{portal}/oidc/callback/", f"{portal}/accounts/oidc/hospital/login/callback/"],
        post_logout_redirect_uris=[f"{portal}/oidc/logged-out/", f"{portal}/"],
        backchannel_logout_uri=f"{portal}/oidc/backchannel-logout/",
        require_pkce=False,
    )


if __name__ == "__main__":
    serve()

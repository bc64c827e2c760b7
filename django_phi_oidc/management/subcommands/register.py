"""Registers the portal at a provider, as it is declared, and shows what came of it (RFC 7591)."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import CommandError, OutputWrapper
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...doctor.registration import register_client
from ...errors import PhiOidcError
from ...oidc.registration import ClientURLs
from ...provider.http_transport import HTTPTransport
from ._files import create_private_file
from .doctor import write_finding


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc register`."""
    parser.add_argument("provider", metavar="PROVIDER", help="its name in PROVIDERS; any client_id stands there before")
    parser.add_argument("--portal", required=True, metavar="ORIGIN", help="where the portal is: https://your.host")
    parser.add_argument("--initial-access-token", type=Path, metavar="FILE", help="the file of the provider's leave")
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="a new file, for client_id and secrets"
    )
    parser.add_argument("--json", action="store_true", help="an object a line, for each member")


@sensitive_variables()
def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Register, write the answer into the file, and tell what is registered otherwise.

    Raises: CommandError when nothing was registered, or not as it must be.
    """
    declaration = conf.providers().get(options["provider"])
    if declaration is None:
        raise CommandError(f"There is no provider {options['provider']}.")
    addresses = _build_client_urls(options["portal"], provider=None if len(conf.providers()) == 1 else declaration.name)
    path: Path = options["output"]
    transport = HTTPTransport(declaration)
    try:
        token = _read_text(options["initial_access_token"])
        with create_private_file(path) as file:
            registered = register_client(
                declaration, client_urls=addresses, initial_access_token=token, transport=transport
            )
            file.write(json.dumps(registered.members, indent=2) + "\n")
    except PhiOidcError as refusal:
        raise CommandError(f"Nothing was registered: {refusal} [{refusal.code}]") from refusal
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}.") from error
    finally:
        transport.close()
    for finding in registered.findings:
        write_finding(finding, declaration.name, as_json=options["json"], stdout=stdout)
    stderr.write(f"client_id and what is secret are in {path}.")
    if any(finding.level == "failure" for finding in registered.findings):
        raise CommandError("The client is registered, and not as it must be.")


def _build_client_urls(portal_origin: str, *, provider: str | None) -> ClientURLs:
    """provider: None where it is the only one, and its addresses do not name it."""
    parts = urlsplit(portal_origin)
    if parts.scheme not in ("https", "http") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise CommandError("--portal is an origin, such as https://your.host.")
    origin = f"{parts.scheme}://{parts.netloc}"
    named = {"provider": provider} if provider else None
    return ClientURLs(
        callback=origin + reverse("oidc_authentication_callback", kwargs=named),
        logged_out=origin + reverse("oidc_logged_out"),
        backchannel_logout=origin + reverse("oidc_backchannel_logout"),
        frontchannel_logout=origin + reverse("oidc_frontchannel_logout"),
        jwks=origin + reverse("oidc_jwks"),
    )


def _read_text(path: Path | None) -> str:
    return path.read_text(encoding="ascii").strip() if path else ""

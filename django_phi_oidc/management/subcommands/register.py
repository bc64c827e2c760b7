"""Registers the portal at a provider as declared, and shows the registration (RFC 7591)."""

import json
from argparse import ArgumentParser
from pathlib import Path
from urllib.parse import urlsplit

from django.core.management.base import CommandError
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...doctor.registration import register_client
from ...errors import PhiOidcError
from ...oidc.registration import ClientURLs
from ...provider.http_transport import HTTPTransport
from ._arguments import Options, get_provider
from ._files import create_private_file
from ._output import Output
from .doctor import write_finding


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("provider", metavar="PROVIDER", help="its name in PROVIDERS, declared with any client_id")
    parser.add_argument("--portal", required=True, metavar="ORIGIN", help="origin of the portal: https://your.host")
    parser.add_argument("--initial-access-token", type=Path, metavar="FILE", help="file with the initial access token")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="new file for id and secrets")
    parser.add_argument("--json", action="store_true", help="one object per line for each member")
    parser.set_defaults(handler=handle)


@sensitive_variables()
def handle(options: Options, output: Output) -> None:
    """Register the client, write the response to the file, and print what differs from the request.

    Raises: CommandError if nothing was registered, or a critical member differs.
    """
    declaration = get_provider(options["provider"])
    client_urls = _build_client_urls(options["portal"], None if len(conf.providers()) == 1 else declaration.name)
    path: Path = options["output"]
    transport = HTTPTransport(declaration)
    try:
        token_path = options["initial_access_token"]
        token = token_path.read_text(encoding="ascii").strip() if token_path else ""
        with create_private_file(path) as file:
            registered = register_client(
                declaration, client_urls=client_urls, initial_access_token=token, transport=transport
            )
            file.write(json.dumps(registered.members, indent=2) + "\n")
    except PhiOidcError as refusal:
        raise CommandError(f"Nothing was registered: {refusal} [{refusal.code}]") from refusal
    except OSError as error:
        raise CommandError(f"{error.filename}: {error.strerror}.") from error
    finally:
        transport.close()
    for finding in registered.findings:
        write_finding(finding, declaration.name, output)
    output.stderr.write(f"The client_id and the secrets are in {path}.")
    if any(finding.level == "failure" for finding in registered.findings):
        raise CommandError("The client is registered, but a critical member differs from the declaration.")


def _build_client_urls(portal_origin: str, provider_name: str | None) -> ClientURLs:
    """provider_name: None if it is the only provider, because its URLs do not contain the name then."""
    parts = urlsplit(portal_origin)
    if parts.scheme not in ("https", "http") or not parts.netloc or parts.path.strip("/") or parts.query:
        raise CommandError("--portal must be an origin, such as https://your.host.")
    origin = f"{parts.scheme}://{parts.netloc}"
    kwargs = {"provider": provider_name} if provider_name else None
    names = ("logged_out", "backchannel_logout", "frontchannel_logout", "jwks")
    urls = {name: origin + reverse(f"oidc_{name}") for name in names}
    return ClientURLs(callback=origin + reverse("oidc_authentication_callback", kwargs=kwargs), **urls)

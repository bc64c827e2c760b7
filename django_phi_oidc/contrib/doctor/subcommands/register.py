"""Register the portal at a provider as declared, and show the registration (RFC 7591)."""

import json
from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import CommandError
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from .... import conf
from ...._internal.command_arguments import Options, build_argument_error
from ...._internal.command_output import Output
from ....claims.minimization import build_claims_request
from ....config.providers import ProviderDeclaration
from ....errors import PhiOidcError
from ....http.http_transport import HTTPTransport
from ....management.subcommands._arguments import get_provider
from ...common.portal_origin import parse_portal_origin
from ...common.private_files import create_private_file
from ...common.registration import ClientURLs
from ..callback_path import build_callback_path
from ..registration import register_client
from ..udap import UDAPClientInformation
from .doctor import write_finding

READING_COMMANDS = ("register",)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "provider", metavar="PROVIDER", help="Its name in PROVIDERS, declared with any client_id."
    )
    parser.add_argument(
        "--portal", required=True, metavar="ORIGIN", help="Origin of the portal: https://your.host."
    )
    parser.add_argument(
        "--initial-access-token",
        type=Path,
        metavar="FILE",
        help="File with the initial access token.",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FILE", help="New file for id and secrets."
    )
    parser.add_argument(
        "--udap", action="store_true", help="Register by a signed software statement, for UDAP."
    )
    parser.add_argument(
        "--client-name",
        default="",
        metavar="NAME",
        help="With --udap: name of the portal for users.",
    )
    parser.add_argument(
        "--contact", action="append", metavar="URI", help="With --udap: mailto:privacy@example.org."
    )
    parser.add_argument(
        "--logo",
        default="",
        metavar="URL",
        help="With --udap: https URL of a PNG, JPG or GIF image.",
    )
    parser.set_defaults(handler=handle)


@sensitive_variables()
def handle(options: Options, output: Output) -> None:
    """Register the client, write the response to the file, and print what differs from the request.

    Raises: CommandError if nothing was registered, or a critical member differs.
    """
    declaration = get_provider(options["provider"])

    udap = None
    if options["udap"]:
        udap = _build_udap_information(options, declaration)

    client_urls = _build_client_urls(parse_portal_origin(options["portal"]), declaration.name)
    path: Path = options["output"]
    transport = HTTPTransport(declaration)
    try:
        token_path = options["initial_access_token"]
        if token_path:
            token = token_path.read_text(encoding="ascii").strip()
        else:
            token = ""

        with create_private_file(path) as file:
            registered = register_client(
                declaration,
                client_urls=client_urls,
                initial_access_token=token,
                transport=transport,
                udap=udap,
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
    output.note(f"The client_id and the secrets are in {path}.")
    if any(finding.level == "failure" for finding in registered.findings):
        raise CommandError(
            "The client is registered, but a critical member differs from the declaration."
        )


def _build_udap_information(
    options: Options, declaration: ProviderDeclaration
) -> UDAPClientInformation:
    """Raises: CommandError for what UDAP Security 3.1 does not permit."""
    contacts = tuple(options["contact"] or ())
    if not declaration.udap:
        raise CommandError(f"PROVIDERS[{declaration.name!r}]['udap'] must be True.")
    if not options["client_name"] or not any(contact.startswith("mailto:") for contact in contacts):
        raise build_argument_error("--udap requires --client-name, and --contact mailto:….")
    if not options["logo"].startswith("https://"):
        raise build_argument_error("--udap requires --logo https://….")
    scope = build_claims_request(conf.claims(), provider_declaration=declaration).scope
    return UDAPClientInformation(
        client_name=options["client_name"], contacts=contacts, logo_uri=options["logo"], scope=scope
    )


def _build_client_urls(portal_origin: str, provider: str) -> ClientURLs:
    names = ("logged_out", "backchannel_logout", "frontchannel_logout", "jwks")
    urls = {name: portal_origin + reverse(f"oidc_{name}") for name in names}
    return ClientURLs(callback=portal_origin + build_callback_path(provider), **urls)

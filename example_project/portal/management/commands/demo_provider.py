"""`manage.py demo_provider`: an identity provider with invented accounts. Never for production."""

import dataclasses
import signal
import threading
from argparse import ArgumentParser
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError

from django_phi_oidc import conf
from django_phi_oidc.config.loopback import is_loopback_http
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.testing.mock_provider import Client, DemoProvider, demo_accounts, demo_client, demo_staff
from portal.demo.hostile_provider import ProviderControl


class Command(BaseCommand):
    """Serves the demo identity provider at OIDC_ISSUER."""

    help = "Serves the demo identity provider at OIDC_ISSUER, only on loopback, until Ctrl-C. Never for production."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--portal",
            action="append",
            metavar="URL",
            help="URL of the portal, may be repeated; default: http://127.0.0.1:8000 and http://localhost:8000",
        )

        parser.add_argument(
            "--provider", metavar="NAME", help="name of the declared provider to serve; default: the first"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until SIGINT or SIGTERM."""
        providers = conf.providers()
        declaration = providers.get(options["provider"]) if options["provider"] else next(iter(providers.values()))
        if declaration is None:
            raise CommandError(f"There is no provider {options['provider']}.")
        issuer = urlsplit(declaration.issuer)
        if not is_loopback_http(issuer.geturl()) or issuer.path:
            raise CommandError("OIDC_ISSUER must be http on loopback, the only place where the demo provider runs.")
        stopped = threading.Event()
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signal_number, lambda *_: stopped.set())
        portal_urls = options["portal"] or ["http://127.0.0.1:8000", "http://localhost:8000"]
        client = create_registration(portal_urls, declaration)
        accounts = (*demo_accounts(), *demo_staff())
        provider = DemoProvider([client], accounts, host=str(issuer.hostname), port=issuer.port or 80)
        provider.mutate = control = ProviderControl(provider, client)
        provider.intercept = control.intercept
        try:
            provider.start()
        except OSError as error:
            raise CommandError(f"Port {provider.port} is not available: {error.strerror}.") from error
        self.stdout.write(f"Demo identity provider at {provider.issuer}. Not for production.")
        for account in accounts:
            self.stdout.write(f"  account {account.username}, password {account.password}")
        stopped.wait()
        provider.stop()


def create_registration(portal_urls: list[str], declaration: ProviderDeclaration) -> Client:
    """Return the registration of the portal at these URLs, with its client authentication."""
    clients = [demo_client(portal_url) for portal_url in portal_urls]
    return dataclasses.replace(
        clients[0],
        client_id=declaration.client_id,
        client_secret=declaration.client_secret,
        token_endpoint_auth_methods=(declaration.token_endpoint_auth_method,),
        jwks={"keys": [key.build_public_jwk() for key in declaration.client_keys]},
        redirect_uris=[
            uri
            for client in clients
            for redirect_uri in client.redirect_uris
            for uri in (redirect_uri, redirect_uri.replace("/oidc/", f"/oidc/{declaration.name}/"))
        ],
        post_logout_redirect_uris=[uri for client in clients for uri in client.post_logout_redirect_uris],
        # The demo does not use back-channel logout.
        backchannel_logout_uri="",
        sector_identifier=clients[0].get_sector_identifier(),
    )

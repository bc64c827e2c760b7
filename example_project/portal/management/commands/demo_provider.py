"""`manage.py demo_provider`: an identity provider with invented people, for this portal. Never for production."""

import dataclasses
import signal
import threading
from argparse import ArgumentParser
from typing import Any
from urllib.parse import urlsplit

from django.core.management.base import BaseCommand, CommandError

from django_phi_oidc import conf
from django_phi_oidc.config.providers import ProviderDeclaration, is_loopback_http
from django_phi_oidc.testing.mock_provider import Client, DemoProvider, demo_accounts, demo_client, demo_staff
from portal.demo.hostile_provider import Control


class Command(BaseCommand):
    """Serves the demo identity provider at OIDC_ISSUER."""

    help = "Serves the demo identity provider at OIDC_ISSUER, on loopback alone, until Ctrl-C. Never for production."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Read where the portal is."""
        parser.add_argument(
            "--portal",
            action="append",
            metavar="URL",
            help="address of the portal, may be repeated; default: http://127.0.0.1:8000 and http://localhost:8000",
        )

        parser.add_argument("--provider", metavar="NAME", help="which declared provider to be; default: the first")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve until SIGINT or SIGTERM."""
        providers = conf.providers()
        declared = providers.get(options["provider"]) if options["provider"] else next(iter(providers.values()))
        if declared is None:
            raise CommandError(f"There is no provider {options['provider']}.")
        issuer = urlsplit(declared.issuer)
        if not is_loopback_http(issuer.geturl()) or issuer.path:
            raise CommandError("OIDC_ISSUER must be http on loopback: the demo provider is nowhere else.")
        ended = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        client = client_of(options["portal"] or ["http://127.0.0.1:8000", "http://localhost:8000"], declared)
        people = (*demo_accounts(), *demo_staff())
        provider = DemoProvider([client], people, host=str(issuer.hostname), port=issuer.port or 80)
        provider.mutate = control = Control(provider, client)
        provider.intercept = control.intercept
        try:
            provider.start()
        except OSError as error:
            raise CommandError(f"Port {provider.port} can't be had: {error.strerror}.") from error
        self.stdout.write(f"Demo identity provider at {provider.issuer}. Not for production: it can lie.")
        for account in people:
            self.stdout.write(f"  account {account.username}, password {account.password}")
        ended.wait()
        provider.stop()


def client_of(portals: list[str], declared: ProviderDeclaration) -> Client:
    """Return the registration of this portal, reachable under each of the addresses, with what it proves itself by."""
    first = demo_client(portals[0])
    others = [demo_client(portal) for portal in portals[1:]]
    return dataclasses.replace(
        first,
        client_id=declared.client_id,
        client_secret=declared.client_secret,
        token_endpoint_auth_methods=(declared.token_endpoint_auth_method,),
        jwks={"keys": [key.build_public_jwk() for key in declared.client_keys]},
        redirect_uris=[
            uri
            for client in (first, *others)
            for own in client.redirect_uris
            for uri in (own, own.replace("/oidc/", f"/oidc/{declared.name}/"))
        ],
        post_logout_redirect_uris=[uri for client in (first, *others) for uri in client.post_logout_redirect_uris],
        # No back-channel address: this version of the portal has no door for it.
        backchannel_logout_uri="",
        sector_identifier=first.get_sector_identifier(),
    )

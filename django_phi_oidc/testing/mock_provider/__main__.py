"""`python -m django_phi_oidc.testing.mock_provider`: the demo provider in the foreground. Never for production."""

import argparse
import logging
import signal
import threading

from .provider import DemoProvider
from .registrations import TLSFiles, demo_accounts, demo_client

logger = logging.getLogger("django_phi_oidc.testing.mock_provider")


def serve(
    *,
    portal_url: str,
    host: str = "127.0.0.1",
    port: int = 8765,
    tls: TLSFiles | None = None,
    pairwise_salt: bytes = b"",
) -> None:
    """Serve the demo accounts to the portal at that address until SIGINT or SIGTERM.

    pairwise_salt keeps every person's `sub` over restarts; empty: one for this run. Main thread only.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    provider = DemoProvider(
        [demo_client(portal_url)], demo_accounts(), host=host, port=port, tls=tls, pairwise_salt=pairwise_salt
    )
    with provider.running():
        logger.warning("Demo identity provider at %s. NOT FOR PRODUCTION: it can lie.", provider.issuer)
        for account in demo_accounts():
            logger.warning("Demo account: %s, password: %s", account.username, account.password)
        ended.wait()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(prog="python -m django_phi_oidc.testing.mock_provider", description=__doc__)
    parser.add_argument("--portal", default="http://127.0.0.1:8000", help="address of the portal that may sign in here")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address; no other is possible")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--cert", default="", help="PEM certificate chain: serve TLS")
    parser.add_argument("--key", default="", help="PEM private key of the certificate")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tls = TLSFiles(given.cert, given.key) if given.cert else None
    serve(portal_url=given.portal, host=given.host, port=given.port, tls=tls)


if __name__ == "__main__":
    main()

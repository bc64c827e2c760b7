"""`python -m django_phi_oidc.testing.mock_provider`: run the demo provider in the foreground. Not
for production.
"""

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
    """Serve the demo accounts to the portal at that URL until SIGINT or SIGTERM.

    With a fixed pairwise_salt, each `sub` is the same after a restart; empty: a random salt. Main
    thread only.
    """
    stopped = threading.Event()
    for signal_number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signal_number, lambda *_: stopped.set())
    provider = DemoProvider(
        [demo_client(portal_url)],
        demo_accounts(),
        host=host,
        port=port,
        tls=tls,
        pairwise_salt=pairwise_salt,
    )
    with provider.running():
        logger.warning("Demo identity provider at %s. NOT FOR PRODUCTION.", provider.issuer)
        for account in demo_accounts():
            logger.warning("Demo account: %s, password: %s", account.username, account.password)
        stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m django_phi_oidc.testing.mock_provider", description=__doc__
    )
    parser.add_argument(
        "--portal",
        default="http://127.0.0.1:8000",
        help="URL of the portal that is registered as client",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="a loopback address; others are rejected"
    )
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--cert", default="", help="PEM certificate chain: serve TLS")
    parser.add_argument("--key", default="", help="PEM private key of the certificate")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    tls = None
    if arguments.cert:
        tls = TLSFiles(arguments.cert, arguments.key)

    serve(portal_url=arguments.portal, host=arguments.host, port=arguments.port, tls=tls)


if __name__ == "__main__":
    main()

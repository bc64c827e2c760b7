"""Witnesses in a process of their own: `python -m tests.benchmarks.witnesses.servers FOLDER LIE …`.

Prints the key and the URL of each, and serves until killed.
"""

import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.support.witness_server import witness

ORIGIN = "phi-oidc-audit"
LOG_KEY = Ed25519PrivateKey.from_private_bytes(b"a signing key, for benchmarks...")
"""That of the settings of the benchmarks."""


def main(folder: Path, *lies: str) -> None:
    """Serve until killed."""
    with ExitStack() as stack:
        for number, lie in enumerate(lies):
            logs = {ORIGIN: LOG_KEY.public_key()}
            running = stack.enter_context(witness(f"witness.example/w{number}", folder, logs, lie=lie))
            print(running.vkey, running.url, flush=True)
        signal.pause()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])

"""Encryption keys from a service: `PHI_OIDC['KEYS']['encryption'] = Cached(from_vault)`, or `from_kms`."""

import base64
import os
import threading
import time
from pathlib import Path

import urllib3

from django_phi_oidc.errors import KeyMissing

FAULTS = (urllib3.exceptions.HTTPError, OSError, ValueError, KeyError, TypeError)
http = urllib3.PoolManager(timeout=urllib3.Timeout(connect=1.0, read=1.0), retries=False)


class Cached:
    """Keys from fetch(), fetched again after `fresh` seconds, unavailable after `most` seconds without a response."""

    def __init__(self, fetch, *, fresh=60.0, most=3600.0, retry=5.0):
        self.fetch, self.fresh, self.most, self.retry = fetch, fresh, most, retry
        self.lock = threading.Lock()
        self.keys, self.answered, self.due = None, 0.0, 0.0

    def __call__(self):
        if time.monotonic() >= self.due and self.lock.acquire(blocking=self.keys is None):
            try:
                self._ask()
            finally:
                self.lock.release()
        if self.keys is None or time.monotonic() - self.answered > self.most:
            raise KeyMissing("The service that has the encryption keys does not answer.")
        return self.keys

    def _ask(self):
        if time.monotonic() < self.due:
            return  # Another thread fetched the keys while this one waited.
        try:
            self.keys = self.fetch()
            self.answered = time.monotonic()
            self.due = self.answered + self.fresh
        except FAULTS:
            self.due = time.monotonic() + self.retry


def judged(answer):
    if answer.status != 200:
        raise ValueError(f"The service answered {answer.status}.")
    return answer.json()


def from_vault():
    """Return the list of keys that Vault stores."""
    token = Path(os.environ["VAULT_TOKEN_FILE"]).read_text().strip()
    address = f"{os.environ['VAULT_ADDR']}/v1/secret/data/phi-oidc"
    answer = http.request("GET", address, headers={"X-Vault-Token": token}, redirect=False)
    return judged(answer)["data"]["data"]["encryption_keys"]


METADATA = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
KMS = os.environ.get("PHI_KMS_URL", "https://cloudkms.googleapis.com/v1")


def from_kms():
    """Return the list of keys, each unwrapped by the KMS."""
    address = f"http://{METADATA}/computeMetadata/v1/instance/service-accounts/default/token"
    token = judged(http.request("GET", address, headers={"Metadata-Flavor": "Google"}, redirect=False))["access_token"]
    keys = []
    for wrapped in Path(os.environ["PHI_WRAPPED_KEYS"]).read_text().split():
        answer = http.request(
            "POST",
            f"{KMS}/{os.environ['PHI_KMS_KEY']}:decrypt",
            json={"ciphertext": wrapped},
            headers={"Authorization": f"Bearer {token}"},
            redirect=False,
        )
        keys.append(base64.b64decode(judged(answer)["plaintext"]).decode("ascii"))
    return keys

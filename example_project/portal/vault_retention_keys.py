"""Retention keys in the KV engine, version 2, of HashiCorp Vault: `PHI_OIDC['KEYS']['retention']`."""

import base64
import json
import secrets
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from django_phi_oidc.errors import KeyMissing


class VaultRetentionKeys:
    """Retention keys in Vault: `secret/phi-retention/NAME`. LIST returns one entry, `person/`, for all persons."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token = address, token

    def get(self, name):
        found = self._ask("GET", f"data/phi-retention/{name}")
        return base64.b64decode(found["data"]["data"]["key"]) if found else None

    def create(self, name):
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        # Check-and-set: one server writes.
        self._ask("POST", f"data/phi-retention/{name}", {"options": {"cas": 0}, "data": {"key": key}})
        found = self.get(name)
        if found is None:
            raise KeyMissing("Vault did not keep the key.")
        return found

    def destroy(self, name):
        # All versions and their metadata.
        self._ask("DELETE", f"metadata/phi-retention/{name}")

    def names(self):
        found = self._ask("LIST", "metadata/phi-retention")
        return found["data"]["keys"] if found else []

    def _ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Vault-Token": self.token, "Content-Type": "application/json"}
        request = Request(f"{self.address}/v1/secret/{path}", data=data, headers=headers, method=method)
        try:
            with urlopen(request, timeout=2) as answer:
                return json.loads(answer.read() or b"{}")
        except HTTPError as error:
            # No key to get, or check-and-set found one.
            if error.code == 404 or (error.code == 400 and method == "POST"):
                return None
            raise KeyMissing("Vault refused.") from error
        except (URLError, OSError, ValueError) as error:
            raise KeyMissing("Vault can't be reached.") from error

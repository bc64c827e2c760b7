"""Private keys of a client, as PEM: the attack kit's own."""

from django_phi_oidc.attack.pems import new_pem, pem

__all__ = ["new_pem", "pem"]

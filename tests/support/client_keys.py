"""Private keys of a client as PEM, from the attack kit."""

from django_phi_oidc.testing.attack.throwaway_ca import create_private_key_pem, encode_private_key

__all__ = ["create_private_key_pem", "encode_private_key"]

"""A certificate authority for tests, from the attack kit."""

from django_phi_oidc.testing.attack.throwaway_ca import CertificateAuthority, create_certificate_authority

__all__ = ["CertificateAuthority", "create_certificate_authority"]

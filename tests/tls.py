"""A certificate authority for tests: the attack kit's own."""

from django_phi_oidc.attack.authority import Authority, found_authority

__all__ = ["Authority", "found_authority"]

"""A small patient portal that uses django_phi_oidc."""

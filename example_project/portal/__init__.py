"""A small patient portal in front of django_phi_oidc."""

pytest_plugins = ["django_phi_oidc.testing.runner"]

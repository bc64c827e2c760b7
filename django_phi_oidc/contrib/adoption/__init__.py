"""Adoption of projects that use mozilla-django-oidc or django-allauth: their settings, and the
links of their users.
"""

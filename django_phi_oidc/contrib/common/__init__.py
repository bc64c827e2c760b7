"""Code that at least two apps share, and that neither the core nor the audit log imports.

This is no app: it has no models, URLs, settings or AppConfig, and is not in INSTALLED_APPS. It
imports the core and the audit log, and no app. Code of one app belongs to that app.
"""

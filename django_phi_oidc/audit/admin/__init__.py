"""The pages of the audit log in Django's admin, whose autodiscovery finds them here."""

from django.apps import apps

# Exports use modules of this package in processes without the admin, too.
if apps.is_installed("django.contrib.admin"):
    from . import audit_log as audit_log
    from . import set_aside_list as set_aside_list

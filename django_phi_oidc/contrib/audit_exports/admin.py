"""The page of exports and verifications: Django's autodiscovery finds it here."""

from django.contrib import admin

from .models import TrailJob
from .trail_jobs import TrailJobAdmin

admin.site.register(TrailJob, TrailJobAdmin)

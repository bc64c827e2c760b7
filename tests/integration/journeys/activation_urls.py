"""The portal of the journeys, and the admin, where codes are made."""

from django.contrib import admin
from django.urls import path

from tests.support import portal_urls as urls

urlpatterns = [*urls.urlpatterns, path("admin/", admin.site.urls)]

"""The test portal and the admin, which issues activation codes."""

from django.contrib import admin
from django.urls import path

from tests.support import portal_urls as urls

urlpatterns = [*urls.urlpatterns, path("admin/", admin.site.urls)]

"""Which address is answered by which view."""

from django.urls import path

from guestbook import views

urlpatterns = [path("", views.entries), path("healthz", views.healthz)]

"""What is in the database."""

from django.db import models


class Entry(models.Model):
    """What a visitor has written."""

    text = models.CharField(max_length=200)
    at = models.DateTimeField(auto_now_add=True)

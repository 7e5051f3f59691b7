"""What is answered."""

from django.http import HttpResponse
from django.shortcuts import redirect, render

from guestbook.models import Entry


def entries(request):
    """Show the book, or write into it."""
    if request.method == "POST":
        Entry.objects.create(text=request.POST["text"][:200])
        return redirect("/")
    return render(request, "guestbook/entries.html", {"entries": Entry.objects.order_by("-at")[:100]})


def healthz(request):
    """Answer if the database has the table."""
    return HttpResponse(f"{Entry.objects.count()} entries\n", content_type="text/plain")

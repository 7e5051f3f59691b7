"""A WSGI app without a framework: a callable that gets the request and a function to begin the answer with."""

from wsgiref.util import application_uri


def application(environ, start_response):
    """Greet whoever asks, in plain text."""
    name = environ["PATH_INFO"].strip("/") or "world"
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [f"hello, {name}, from {application_uri(environ)}\n".encode()]

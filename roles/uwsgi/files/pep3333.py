"""Offers this release's app to uWSGI, and mends what uWSGI makes of `start_response` with `exc_info`.

It leaves the app's error pending (issue 2278 of unbit/uwsgi): an answer that takes another one back loses its body.
And when it is too late for that, it raises an error of its own instead of the app's.
"""

import importlib.util
import os

PATH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "entry.py")
SPEC = importlib.util.spec_from_file_location("entry", PATH)
ENTRY = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ENTRY)


def application(environ, start_response):
    """Call the app."""

    def start(status, headers, exc_info=None):
        try:
            return start_response(status, headers)
        except OSError:  # the headers have been sent
            if exc_info:
                raise exc_info[1].with_traceback(exc_info[2]) from None
            raise
        finally:
            exc_info = None  # or it would hold its own frame

    return ENTRY.application(environ, start)

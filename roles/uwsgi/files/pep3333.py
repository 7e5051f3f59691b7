"""Offers this release's app to uWSGI, and mends what uWSGI makes of `start_response` with `exc_info`, and of a stop.

It leaves the app's error pending (issue 2278 of unbit/uwsgi): an answer that takes another one back loses its body.
And when it is too late for that, it raises an error of its own instead of the app's.

A worker is told by a signal to end when it has answered; one that waits just then until more of the answer is taken
gives the answer up. So the signal waits until there is nothing left to write.
"""

import importlib.util
import os
import signal
import threading

import uwsgi

HERE = os.path.dirname(os.path.abspath(__file__))
# A release that is run as CGI has both.
PATH = next(path for name in ("as_cgi.py", "entry.py") if os.path.exists(path := os.path.join(HERE, name)))
SPEC = importlib.util.spec_from_file_location("entry", PATH)
ENTRY = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ENTRY)

# The one thread of a worker that uWSGI lets signals come to.
MAIN = threading.get_ident()
# When the release is stopped, and when a worker is old enough.
ENDINGS = (signal.SIGHUP, signal.SIGWINCH)


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

    if threading.get_ident() == MAIN:
        signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    return ENTRY.application(environ, start)


def answered():
    """Let a signal come that waited."""
    if threading.get_ident() == MAIN:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDINGS)


uwsgi.after_req_hook = answered

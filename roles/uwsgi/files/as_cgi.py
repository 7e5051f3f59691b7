"""Answers each request by cgi_script.py, in a process of its own that is asked and answers as CGI has it (RFC 3875).

The request is in the process's environment and on its standard input, the answer comes on its standard output.
"""

import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
COMMAND = [os.path.join(HERE, "..", "venv", "bin", "python"), os.path.join(HERE, "cgi_script.py")]
ENDED = b"The script of this page ended before it answered.\n"


def variables(environ):
    """Return the environment of the script: the app's own, and the request."""
    told = {name: value for name, value in environ.items() if isinstance(value, str) and "." not in name}
    # By it programs are told of a proxy, and not by a visitor: httpoxy.
    told.pop("HTTP_PROXY", None)
    told["GATEWAY_INTERFACE"] = "CGI/1.1"
    return {**os.environb, **{name.encode(): value.encode("latin-1") for name, value in told.items()}}


def head(answer):
    """Read the head of an answer, and return its status and headers; None if there is none."""
    headers = []
    for line in answer:
        name, _, value = line.decode("latin-1").rstrip("\r\n").partition(":")
        if not name:
            status = next((value for name, value in headers if name.lower() == "status"), "200 OK")
            return status, [header for header in headers if header[0].lower() != "status"]
        headers.append((name, value.strip()))
    return None


def application(environ, start_response):
    """Have the script answer, and pass on each piece as it comes."""
    with tempfile.TemporaryFile() as body:
        # A file, as the script may answer before it has read it, or leave it unread.
        shutil.copyfileobj(environ["wsgi.input"], body)
        body.seek(0)
        script = subprocess.Popen(COMMAND, env=variables(environ), stdin=body, stdout=subprocess.PIPE)
    try:
        begun = head(script.stdout)
        if begun:
            start_response(*begun)
        else:
            start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
            yield ENDED
        while piece := script.stdout.read1(65536):
            yield piece
    finally:
        # If the visitor has left, the script's next piece goes nowhere, and that ends it.
        script.stdout.close()
        script.wait()


# An app that cannot be imported is no start.
if subprocess.run(COMMAND, stdin=subprocess.DEVNULL, check=False).returncode:
    sys.exit(1)

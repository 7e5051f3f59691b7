"""A Flask app with a websocket by Flask-Sock, which takes the connection from the server."""

from __future__ import annotations

import flask
import flask_sock
import simple_websocket

app = flask.Flask(__name__)
sock = flask_sock.Sock(app)


@app.get("/x")
def hello() -> str:
    """Answer."""
    return "hello"


@sock.route("/stream/socket")  # type: ignore[untyped-decorator]  # it is in the app's environment only
def echo(websocket: simple_websocket.Server) -> None:
    """Send back each message until the visitor closes it."""
    while True:
        websocket.send(websocket.receive())

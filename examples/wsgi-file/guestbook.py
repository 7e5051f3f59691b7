"""A Flask app that knows nothing of how it is served."""

from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/")
def entries():
    """List the entries."""
    return jsonify(book=app.config["BOOK"], entries=[])

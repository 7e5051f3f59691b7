"""A Flask app that is one module."""

from flask import Flask, jsonify

server = Flask(__name__)


@server.get("/")
def goods():
    """List what there is."""
    return jsonify(goods=["apples", "pears"])

"""A Flask app that a factory makes: a settings file for each place is not needed, the environment has them."""

from flask import Flask, jsonify


def create_app():
    """Make the app, with settings from the variables that begin with FLASK_."""
    app = Flask(__name__)
    app.config.from_prefixed_env()

    @app.get("/")
    def title():
        return jsonify(title=app.config["TITLE"], signed=bool(app.config["SECRET_KEY"]))

    return app

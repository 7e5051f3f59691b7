"""An app of another framework, with a dependency that no other test app has."""

import bottle  # type: ignore[import-not-found]  # it is in the app's environment only

app = bottle.Bottle()


@app.get("/hello")  # type: ignore[untyped-decorator]  # likewise
def hello() -> dict[str, str]:
    """Answer with the name of the framework."""
    return {"message": "hello", "name": f"bottle {bottle.__version__}"}

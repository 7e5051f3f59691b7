"""The entry of a release finds the app's callable, or says what to do."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from rendering import render

if TYPE_CHECKING:
    from pathlib import Path

# What a server does: it loads the file under a name of its own, from a directory that is not the source.
SERVER = """
import importlib.util
import sys
spec = importlib.util.spec_from_file_location("server_entry", sys.argv[1])
loaded = importlib.util.module_from_spec(spec)
spec.loader.exec_module(loaded)
print(loaded.application(None, None))
"""


def app(name: str) -> str:
    """Give the text of a function that tells its name."""
    return f"def {name}(environ, start_response):\n    return __name__ + ':{name}'\n"


def loaded(
    tmp_path: Path, sources: dict[str, str], module: str = "", wsgi_file: str = ""
) -> subprocess.CompletedProcess[str]:
    """Load the entry of a release; stdout is what the callable returned.

    sources: {path below app/: text}. module, wsgi_file: the inputs of these names.
    """
    text = render("release", "entry.py.j2", release_module=module, release_wsgi_file=wsgi_file)
    for path, content in {"etc/entry.py": text, **{f"app/{name}": text for name, text in sources.items()}}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content, encoding="utf-8")
    (tmp_path / "app").mkdir(exist_ok=True)
    command = [sys.executable, "-I", "-B", "-c", SERVER, str(tmp_path / "etc/entry.py")]
    return subprocess.run(command, cwd=tmp_path / "etc", capture_output=True, text=True, check=False, timeout=30)


BOTH = app("app") + app("application")
# dataclasses looks the module up in sys.modules where annotations are text.
DATACLASS = (
    "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass Shop:\n    name: str\n"
)


@pytest.mark.parametrize(
    ("sources", "module", "wsgi_file", "found"),
    [
        ({"wsgi.py": BOTH}, "", "", "wsgi:application"),
        ({"wsgi.py": app("app")}, "", "", "wsgi:app"),
        ({"wsgi.py": "application = 'no callable'\n" + app("app")}, "", "", "wsgi:app"),
        ({"shop.py": BOTH + app("web")}, "shop:web", "", "shop:web"),
        ({"shop.py": BOTH}, "shop:app", "", "shop:app"),
        ({"shop/__init__.py": "", "shop/web.py": BOTH}, "shop.web", "", "shop.web:application"),
        ({"shop.py": f"{app('made')}def create():\n    return made\n"}, "shop:create()", "", "shop:made"),
        ({"web/start.py": BOTH}, "", "web/start.py", "wsgi_file:application"),
        ({"shop.wsgi": app("app")}, "", "shop.wsgi", "wsgi_file:app"),
        ({"start.py": "from other import app\n", "other.py": BOTH}, "", "start.py", "other:app"),
        ({"wsgi.py": BOTH, "web.py": BOTH}, "", "web.py", "wsgi_file:application"),
        ({"start.py": DATACLASS + BOTH}, "", "start.py", "wsgi_file:application"),
    ],
    ids=[
        "application before app",
        "app",
        "application that is no callable",
        "module and callable",
        "callable before the usual names",
        "module in a package",
        "factory",
        "file",
        "file of any ending",
        "file beside the source's modules",
        "file before the convention",
        "file that looks itself up",
    ],
)
def test_the_callable_is_found(
    tmp_path: Path, sources: dict[str, str], module: str, wsgi_file: str, found: str
) -> None:
    """Each way to name the callable, and none, leads to it; the source's own modules can be imported."""
    result = loaded(tmp_path, sources, module, wsgi_file)
    assert (result.stdout, result.stderr) == (f"{found}\n", "")


@pytest.mark.parametrize("missing", range(4))
def test_the_convention_has_an_order(tmp_path: Path, missing: int) -> None:
    """Without a name it is the first of wsgi, app, main and routes that the source has."""
    names = ["wsgi", "app", "main", "routes"][missing:]
    result = loaded(tmp_path, {f"{name}.py": app("app") for name in names})
    assert (result.stdout, result.stderr) == (f"{names[0]}:app\n", "")


def test_a_package_is_a_module(tmp_path: Path) -> None:
    """A package counts as the module that it is, in the same order."""
    result = loaded(tmp_path, {"app/__init__.py": app("app"), "main.py": app("app")})
    assert (result.stdout, result.stderr) == ("app:app\n", "")


def test_a_directory_without_code_is_no_module(tmp_path: Path) -> None:
    """A directory that only happens to have the name hides no module that comes later."""
    result = loaded(tmp_path, {"app/style.css": "", "main.py": app("app")})
    assert (result.stdout, result.stderr) == ("main:app\n", "")


def test_the_source_comes_before_what_is_installed(tmp_path: Path) -> None:
    """A module of the source wins over one of the same name that Python has."""
    result = loaded(tmp_path, {"wsgiref.py": app("app")}, "wsgiref")
    assert (result.stdout, result.stderr) == ("wsgiref:app\n", "")


@pytest.mark.parametrize(
    ("sources", "module", "wsgi_file", "said"),
    [
        (
            {"wsgi.py": app("web") + "_hidden = print\nvalue = 5\n"},
            "",
            "",
            "wsgi has neither a callable `application` nor `app`. Callable there: web. "
            "Name it in release_module, e.g. 'module:callable' or 'module:factory()'.",
        ),
        (
            {"start.py": "value = 5\n"},
            "",
            "start.py",
            "start.py has neither a callable `application` nor `app`. Callable there: nothing. "
            "Name it in release_module, e.g. 'module:callable' or 'module:factory()'.",
        ),
        (
            {"shop.py": BOTH},
            "shop:web",
            "",
            "shop has no callable 'web'. Callable there: app, application.",
        ),
        (
            {"shop.py": app("web") + "value = 5\n"},
            "shop:value",
            "",
            "shop has no callable 'value'. Callable there: web.",
        ),
        (
            {"shop.py": app("web")},
            "shop:create()",
            "",
            "shop has no callable 'create'. Callable there: web.",
        ),
        (
            {"shop.py": "def create():\n    pass\n"},
            "shop:create()",
            "",
            "shop:create() returned None, which is no WSGI callable.",
        ),
        (
            {"shop.py": BOTH, "app/style.css": ""},
            "",
            "",
            "No module to serve: the source has none of wsgi.py, app.py, main.py, routes.py. "
            "Set release_module or release_wsgi_file.",
        ),
    ],
    ids=[
        "nothing usual",
        "nothing at all",
        "not there",
        "no callable",
        "no factory",
        "empty factory",
        "nothing to serve",
    ],
)
def test_what_cannot_be_served_is_said_with_the_remedy(
    tmp_path: Path, sources: dict[str, str], module: str, wsgi_file: str, said: str
) -> None:
    """The last line names what was looked for, what there is, and what to set."""
    result = loaded(tmp_path, sources, module, wsgi_file)
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == f"server_entry.NoCallable: {said}"


def test_the_apps_own_error_stays_itself(tmp_path: Path) -> None:
    """An app that fails while it is imported says why, not that it was not found."""
    result = loaded(tmp_path, {"wsgi.py": "import app.models\n"})
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'app'"

"""How the nginx role serves static files and uploads: what is read in its site, and what nginx says to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from rendering import lines
from test_nginx_templates import block, judged, needs_nginx, site, written

if TYPE_CHECKING:
    from pathlib import Path

SHOP: dict[str, object] = {
    "nginx_app": "my-shop",
    "nginx_app_root": "/srv/shop",
    "nginx_static": {"/static/": "static", "/media/pub/": "shop/assets/pub", "/up/": "uploads/pub", "/all/": "uploads"},
    "nginx_shared": ["uploads"],
    "nginx_static_immutable": ["/static/a.b/"],
    "nginx_static_max_age": 60,
}
SLUG = "$slipway_my_shop_static"
ASK, YEAR = "max-age=60, must-revalidate", "max-age=31536000, immutable"


def mapped(name: str, value: str, **inputs: object) -> str:
    """Give what a map of the site makes of a value, as nginx would: the first expression that fits, or the default."""
    text = site(**{**SHOP, **inputs})
    (opening,) = [line for line in lines(text) if line.startswith("map ") and line.endswith(f"{SLUG}_{name} {{")]
    default = ""
    for line in block(text, opening.removesuffix(" {")):
        quoted = re.fullmatch(r'("[^"]*"|\S+) ("[^"]*"|\S+);', line)
        assert quoted, line
        key, result = (part.strip('"') for part in quoted.groups())
        if key == "default":
            default = result
        elif key.startswith("~"):
            flags = re.IGNORECASE if key.startswith("~*") else 0
            found = re.search(re.sub(r"\?<(?=\w)", "?P<", key.lstrip("~*")), value, flags | re.ASCII)
            if found:
                return found.expand(re.sub(r"\$(\w+)", r"\\g<\1>", result))
        elif key == value:
            return result
    return default


@pytest.mark.parametrize(("prefix", "directory"), [("/static/", "static"), ("/media/pub/", "shop/assets/pub")])
def test_static_files_stay_inside(prefix: str, directory: str) -> None:
    """A prefix serves its directory, behind the one link that is followed, and is only read."""
    text = site(**SHOP)
    found = block(text, f"location ^~ {prefix}")
    assert f"alias /srv/shop/live/app/{directory}/;" in found
    assert f"disable_symlinks on from={SLUG}_padding/srv/shop/live/app;" in found
    refused = [
        "if ($request_method !~ ^(GET|HEAD)$) {",
        "return 405;",
        "}",
        f"if ({SLUG}_hidden) {{",
        "return 404;",
        "}",
    ]
    start = lines(text).index(f"location ^~ {prefix} {{")
    assert lines(text)[start + 2 : start + 8] == refused
    assert not [line for line in found if line.startswith(("autoindex", "root"))]


def test_what_is_missing_is_looked_for_in_the_releases_before() -> None:
    """First in the one before the live one, then in the one before that; then it is nowhere."""
    text = site(**SHOP)
    chain = []
    for opening in ("location ^~ /static/", "location @slipway_my_shop_previous", "location @slipway_my_shop_earlier"):
        found = block(text, opening)
        assert "log_not_found off;" in found
        chain.append([line for line in found if line.startswith(("error_page", "recursive", "root", "try_files"))])
    assert chain == [
        ["error_page 404 = @slipway_my_shop_previous;", "recursive_error_pages on;"],
        [
            "root /srv/shop/previous/app;", f"try_files {SLUG}_file =404;",
            "error_page 404 = @slipway_my_shop_earlier;", "recursive_error_pages on;",
        ],
        ["root /srv/shop/earlier/app;", f"try_files {SLUG}_file =404;"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("/static/a/b.css", "/static/a/b.css"),
        ("/media/pub/b.css", "/shop/assets/pub/b.css"),
        ("/media/pub/two\nlines", "/shop/assets/pub/two\nlines"),
        ("/media/b.css", ""),
        ("/static/", ""),
        ("/static/directory/", ""),
        ("/static/.env", ""),
        ("/static/.git/config", ""),
        ("/static/a.css.bak", ""),
        ("/up/a.png", ""),
        ("/x/static/b.css", ""),
    ],
)
def test_where_a_file_is_in_a_release(uri: str, file: str) -> None:
    """By the prefix that it has; nothing that is hidden, no directory, no upload."""
    assert mapped("file", uri) == file


def test_below_a_path_prefix() -> None:
    """What is said of prefixes holds below the one of the app."""
    assert "alias /srv/shop/live/app/static/;" in block(site(**SHOP, nginx_prefix="/shop"), "location ^~ /shop/static/")
    assert mapped("file", "/shop/static/a.css", nginx_prefix="/shop") == "/static/a.css"
    assert mapped("age", "/shop/static/a.b/x.js", nginx_prefix="/shop") == YEAR


def test_a_longer_prefix_wins() -> None:
    """As it does for the live release."""
    nested = {"/static/": "one", "/static/two/": "second"}
    assert mapped("file", "/static/two/a.css", nginx_static=nested) == "/second/a.css"
    assert mapped("file", "/static/too/a.css", nginx_static=nested) == "/one/too/a.css"


@pytest.mark.parametrize(
    ("name", "age"),
    [
        ("style.3f2a9c1b.css", YEAR), ("style-3f2a9c1b.css", YEAR), ("style_3f2a9c1b7d10.min.css", YEAR),
        ("main.073c9b0a.chunk.js", YEAR), ("main.073c9b0a.js.map", YEAR), ("a/b/logo.0A1b2c3d.png", ASK),
        ("5d41402abc4b2a76b9719d911017c592.woff2", YEAR), ("3f2a9c1b.css", ASK),
        ("style-BX12ab9_.js", YEAR), ("index-a1B2c3D4.mjs", YEAR), ("chunk-2QJXKWLP.js", YEAR),
        ("a.b/anything.js", YEAR), ("aXb/anything.js", ASK),
        ("style.css", ASK), ("report-20240101.pdf", ASK), ("logo-original.png", ASK), ("hero-Section1.png", ASK),
        ("trip-DSC01234.jpg", ASK), ("scan-IMG00012.jpg", ASK), ("main-HomePage.js", ASK), ("style.deadbeef.css", ASK),
        ("jquery-3.6.0.min.js", ASK), ("bootstrap.bundle.min.js", ASK), ("font-awesome.css", ASK),
        ("3f2a9c1b.d/style.css", ASK), ("style.3f2a9c1b", ASK), ("app-v1.2.3a4b5c6d7e8f.x", YEAR),
    ],
)  # fmt: skip
def test_how_long_a_file_is_kept(name: str, age: str) -> None:
    """For ever only if its name has a digest of the content in it, or is below a prefix of which that is said."""
    assert mapped("age", f"/static/{name}") == age


@pytest.mark.parametrize("name", [".env", "a/.git/HEAD", "a~", "a.bak", "A.BAK", "a.swp", "a.swo", "a.orig", "a.old",
                                  "a.rej", "a.save", "#a#", "b/#a#"])  # fmt: skip
def test_what_is_hidden(name: str) -> None:
    """Dotfiles, and what editors and patches leave behind."""
    assert mapped("hidden", f"/static/{name}") == "1"


@pytest.mark.parametrize("name", ["a.css", "a~b.js", "a.bak.css", "movie.swf", "old", "a#b", "a.b.c", "oldest.orig.x"])
def test_what_is_not_hidden(name: str) -> None:
    """What only resembles such a name is there, and so is .well-known."""
    assert mapped("hidden", f"/static/{name}") == ""
    assert mapped("hidden", f"/.well-known/{name}") == ""


def test_what_the_answers_say() -> None:
    """What came for a password is kept by one browser only; 405 says what is allowed; what cannot be shown is saved."""
    assert (mapped("audience", ""), mapped("audience", "Basic eDp4")) == ("public", "private")
    assert (mapped("allow", "405"), mapped("allow", "404")) == ("GET, HEAD", "")
    assert mapped("disposition", "application/octet-stream") == "attachment"
    assert mapped("disposition", "image/png") == ""


@pytest.mark.parametrize(("prefix", "directory"), [("/up/", "uploads/pub"), ("/all/", "uploads")])
def test_uploads_are_never_run(prefix: str, directory: str) -> None:
    """They come from outside the releases, with types that run nothing and nothing that is compressed beforehand."""
    text = site(**SHOP)
    found = block(text, f"location ^~ {prefix}")
    assert f"alias /srv/shop/shared/{directory}/;" in found
    assert "disable_symlinks on from=/srv/shop/shared;" in found
    assert "default_type application/octet-stream;" in found
    assert "add_header Content-Security-Policy \"sandbox; default-src 'none'\" always;" in found
    assert not [line for line in found if "static on" in line or "immutable" in line or line.startswith("error_page")]
    types = text.split("types {")[1].split("}")[0]
    assert not re.search(r"\b(html?|xhtml|svg|xml|js|mjs|css|pdf|swf|wasm)\b", types)


def test_every_answer_has_the_headers_of_the_site_once() -> None:
    """Those of a location of its own too; for uploads there is another policy in the place of the site's."""
    named = {"nginx_headers": {"content-security-policy": "default-src 'self'", "X-More": 'a "b"'}}
    text = site(**SHOP, **named, web_certificate="files")
    for opening in ("location ^~ /static/", "location @slipway_my_shop_previous", "location @slipway_my_shop_earlier"):
        assert block(text, opening).count("include /etc/nginx/slipway/my-shop/headers;") == 1
    names = [line.split()[1].lower() for line in block(text, "location ^~ /up/") if line.startswith("add_header ")]
    assert len(names) == len(set(names))
    assert {"content-security-policy", "x-frame-options", "strict-transport-security", "x-more"} < set(names)


def test_a_directory_that_only_begins_like_a_shared_one_is_the_sources() -> None:
    """`uploads2` is not in `uploads`."""
    text = site(**{**SHOP, "nginx_static": {"/x/": "uploads2"}})
    assert "alias /srv/shop/live/app/uploads2/;" in block(text, "location ^~ /x/")
    assert "/shared" not in text


def test_compression() -> None:
    """Of files by default, of nothing or of the app's answers too where that is asked for."""

    def switches(**inputs: object) -> tuple[int, int, int]:
        found = lines(site(**{**SHOP, **inputs}))
        text = [line for line in found if re.fullmatch(r"(gzip|brotli)(_static)? on;", line)]
        return text.count("gzip on;"), text.count("brotli on;"), text.count("brotli_static on;")

    served = len(("/static/", "/media/pub/", "previous", "earlier"))
    assert switches() == (served, served, served)
    assert switches(nginx_brotli=False) == (served, 0, 0)
    assert switches(nginx_compress="none") == (0, 0, 0)
    assert switches(nginx_compress="all") == (served + 1, served + 1, served)
    off = site(**{**SHOP, "nginx_compress": "none"})
    assert not re.search("gzip|brotli|padding", off)


def test_a_site_without_static_files_has_nothing_of_them() -> None:
    """Neither locations nor maps; nothing is compressed."""
    assert not re.search("_static_|gzip|brotli|_previous", site())


@needs_nginx
@pytest.mark.parametrize(
    "inputs",
    [
        SHOP,
        SHOP | {"nginx_compress": "all"},
        SHOP | {"nginx_compress": "none", "nginx_shared": []},
        {"nginx_compress": "all"},
        {"nginx_static": {"/.well-known/x/": "a+b@c", "/a+b/": ".hidden/x"}, "nginx_static_immutable": ["/a+b@c-d/"]},
    ],
    ids=["static", "all", "none", "no files", "strange names"],
)
def test_nginx_accepts_it_without_a_warning(tmp_path: Path, inputs: dict[str, object]) -> None:
    """What is written leaves nginx nothing to say."""
    result = judged(written(tmp_path, **{"nginx_user": "root", "nginx_group": "root", **inputs}))
    said = [line for line in result.stderr.splitlines() if '"user" directive makes sense only' not in line]
    assert (result.returncode, len(said)) == (0, 2), result.stderr

"""Files that say what a release needs: told by name, refused when they are broken or too old, obeyed by the real uv."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils import dependencies
from ansible_collections.slipway.wsgi.plugins.module_utils.dependencies import DependencyError

UV = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
HASH = "--hash=sha256:" + 64 * "0"
PROJECT = '[project]\nname = "Shop"\nversion = "1"\nrequires-python = ">=3.10"\n'
LOCK = 'version = 1\n[[package]]\nname = "shop"\nversion = "1"\nsource = { virtual = "." }\n'


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("requirements.txt", "requirements"),
        ("deploy/prod.txt", "requirements"),
        ("uv.lock", "uv.lock"),
        ("backend/uv.lock", "uv.lock"),
        ("pylock.toml", "pylock"),
        ("pylock.prod.toml", "pylock"),
        ("pyproject.toml", "pyproject"),
    ],
)
def test_a_file_is_told_by_its_name(file: str, expected: str) -> None:
    assert dependencies.kind(file) == expected
    assert dependencies.locked(file) == (expected != "pyproject")


@pytest.mark.parametrize(
    "file", ["poetry.lock", "pylock.a.b.toml", "pylock..toml", "mypylock.toml", "setup.py", "a.toml", ""]
)
def test_other_files_are_refused_with_what_is_accepted(file: str) -> None:
    with pytest.raises(
        DependencyError, match=r"names .*\*\.txt.*uv\.lock.*pylock\.<name>\.toml.*pyproject\.toml is needed"
    ):
        dependencies.kind(file)


def test_what_a_lock_is_made_from_is_refused_with_how_to_make_one() -> None:
    with pytest.raises(DependencyError, match=r"requirements\.in: .*uv pip compile --universal --generate-hashes"):
        dependencies.install("uv", "/venv", "/app/requirements.in")


def test_only_uv_lock_needs_a_file_beside_it() -> None:
    assert dependencies.needs("uv.lock") == ["pyproject.toml"]
    assert dependencies.needs("backend/uv.lock") == ["backend/pyproject.toml"]
    assert [dependencies.needs(file) for file in ("a.txt", "pylock.toml", "pyproject.toml")] == [[], [], []]


def test_a_lock_is_obeyed_and_packages_of_the_source_are_copied() -> None:
    synced = dependencies.install("uv", "/venv", "/app/uv.lock")
    assert "--frozen" in synced
    # Or uv replaces the environment by one of the version in .python-version.
    assert synced[synced.index("--python") + 1] == "/venv/bin/python"
    for file in ("uv.lock", "pylock.toml", "pyproject.toml"):
        assert "--no-editable" in dependencies.install("uv", "/venv", f"/app/{file}")


def refusal(path: Path) -> str:
    """Return why a file is refused."""
    with pytest.raises(DependencyError) as refused:
        dependencies.check(path)
    return str(refused.value)


def written(directory: Path, name: str, text: str) -> Path:
    """Write a file and give its path."""
    (directory / name).write_text(text, encoding="utf-8")
    return directory / name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ufeff# nothing\n\n",
        f"flask==3.1.3 {HASH}\n",
        f"flask==3.1.3 ; sys_platform == 'linux' \\\n    {HASH} \\\n    {HASH}\n    # via shop\n",
        f"--index-url https://index.example.org/simple\r\nflask==3.1.3 \\\r\n    {HASH}\r\n",
        "-r other.txt\n",
        "tiny @ https://example.org/tiny-1-py3-none-any.whl#sha256=" + 64 * "0",
    ],
)
def test_requirements_with_hashes_are_accepted(tmp_path: Path, text: str) -> None:
    dependencies.check(written(tmp_path, "requirements.txt", text))


@pytest.mark.parametrize(
    ("text", "culprit"),
    [
        ("flask==3.1.3", "flask==3.1.3"),
        (f"flask==3.1.3 {HASH}\nclick>=8  # --hash\n", "click>=8"),
        (f"-e .\nflask==3.1.3 {HASH}\n", "-e ."),
        ("--editable=./lib\n", "--editable=./lib"),
        ("./lib\n", "./lib"),
    ],
)
def test_a_requirement_without_a_hash_is_named(tmp_path: Path, text: str, culprit: str) -> None:
    said = refusal(written(tmp_path, "requirements.txt", text))
    assert said.startswith(f"{tmp_path}/requirements.txt has no hash for `{culprit}`")
    assert "uv pip compile" in said


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refusal(tmp_path / "requirements.txt")


@pytest.mark.parametrize("name", ["pyproject.toml", "pylock.toml", "uv.lock"])
def test_broken_toml_is_refused_with_the_place(tmp_path: Path, name: str) -> None:
    written(tmp_path, "pyproject.toml", PROJECT)
    assert "is no valid TOML: " in refusal(written(tmp_path, name, "a = 1\n<<<<<<< HEAD\n"))


@pytest.mark.parametrize("name", ["pyproject.toml", "pylock.toml", "uv.lock"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    written(tmp_path, "pyproject.toml", PROJECT)
    assert refusal(written(tmp_path, name, "")).startswith(f"{tmp_path}/{name} ")


def test_pyproject_says_what_is_needed_in_its_table_project(tmp_path: Path) -> None:
    dependencies.check(written(tmp_path, "pyproject.toml", PROJECT))
    assert "no table [project]" in refusal(written(tmp_path, "pyproject.toml", "[tool.poetry]\nname = 'shop'\n"))


PYLOCK = 'lock-version = "1.0"\ncreated-by = "x"\n'


def test_a_pylock_is_accepted(tmp_path: Path) -> None:
    dependencies.check(written(tmp_path, "pylock.toml", PYLOCK + "packages = []\n"))
    (tmp_path / "lib").mkdir()
    entries = 'packages = [{name = "lib", directory = {path = "lib"}}, {name = "x", vcs = {type = "git", url = "x"}}]\n'
    dependencies.check(written(tmp_path, "pylock.prod.toml", PYLOCK + entries))


@pytest.mark.parametrize(
    ("package", "reason"),
    [
        ('{name = "shop", directory = {path = ".", editable = true}}', "would install the app itself (shop)"),
        ('{name = "lib", directory = {path = "../lib"}}', "has lib from ../lib, which is not in the source"),
        ('{name = "x", wheels = [{path = "w/x.whl", hashes = {}}]}', "has x from w/x.whl, which is not in the source"),
        ('{name = "x", archive = {path = "/etc/passwd"}}', "has x from /etc/passwd, which is not in the source"),
        ('"flask"', "cannot be read"),
    ],
)
def test_a_pylock_with_what_a_host_has_not_is_refused(tmp_path: Path, package: str, reason: str) -> None:
    assert reason in refusal(written(tmp_path, "pylock.toml", f"{PYLOCK}packages = [{package}]\n"))


def project(directory: Path, dependencies: list[str], known: str, sources: str = "") -> Path:
    """Write a pyproject.toml and the uv.lock that knew it with the entries of `known`; give the lock."""
    written(directory, "pyproject.toml", f"{PROJECT}dependencies = {json.dumps(dependencies)}\n{sources}")
    return written(directory, "uv.lock", f"{LOCK}[package.metadata]\nrequires-dist = [{known}]\n")


FLASK = '{ name = "flask", specifier = ">=3" }'
GIT = 'git = "https://example.org/lib.git?%s"'
FROM_GIT = '[tool.uv.sources]\nlib = { git = "https://example.org/lib.git", tag = "v1" }'


@pytest.mark.parametrize(
    ("asked", "known", "sources"),
    [
        ([], "", ""),
        (["Flask >= 3.0"], FLASK, ""),
        (["flask (<4,>=3)"], '{ name = "flask", specifier = ">=3,<4" }', ""),
        (["x~=2.0", "y==1.*"], '{ name = "x", specifier = "~=2.0" }, { name = "y", specifier = "==1.*" }', ""),
        (["requests[Use_X,socks]"], '{ name = "requests", extras = ["socks", "use-x"] }', ""),
        # uv writes markers in its own way; that it knows the extras of the project is no dependency of it.
        (
            ["flask>=3 ; python_version > '3.10' and os_name != 'nt'"],
            '{ name = "flask", specifier = ">=3", marker = "python_full_version >= \'3.11\' and os_name != \'nt\'" },'
            '{ name = "toolz", marker = "extra == \'x\'" }',
            '[project.optional-dependencies]\nx = ["toolz"]',
        ),
        (["pywin32>=1; sys_platform == 'win32'"], "", ""),
        (["lib>=1"], f'{{ name = "lib", {GIT % "tag=v1"} }}', FROM_GIT),
        (
            ["lib"],
            f"""{{ name = "lib", {GIT % "branch=b"}, marker = "sys_platform == 'linux'" }}""",
            "[tool.uv.sources]\nlib = [{ git = 'x', rev = 'a', marker = \"sys_platform == 'win32'\" },"
            "{ git = 'x', rev = 'c', extra = 'c' }, { git = 'x', branch = 'b', marker = \"sys_platform == 'linux'\" }]",
        ),
        (["lib @ git+ssh://git@example.org/lib.git@v1#subdirectory=a"], f'{{ name = "lib", {GIT % "rev=v1"} }}', ""),
        (["lib @ git+https://example.org/lib.git"], '{ name = "lib", git = "https://example.org/lib.git" }', ""),
        (["x @ https://e.org/x-1.0%2Bcpu.whl#a=b"], '{ name = "x", url = "https://e.org/x-1.0+cpu.whl" }', ""),
        (
            ["torch>=2"],
            '{ name = "torch", specifier = ">=2", index = "https://e.org", marker = "sys_platform == \'linux\'" },'
            '{ name = "torch", specifier = ">=2", marker = "sys_platform != \'linux\'" }',
            "[tool.uv.sources]\ntorch = [{ index = 'cpu', marker = \"sys_platform == 'linux'\" }]",
        ),
    ],
)
def test_a_lock_that_is_as_new_as_its_project_is_accepted(
    tmp_path: Path, asked: list[str], known: str, sources: str
) -> None:
    dependencies.check(project(tmp_path, asked, known, sources))


@pytest.mark.parametrize(
    ("asked", "known", "sources", "says"),
    [
        (["flask>=3", "toolz"], FLASK, "", "asks for toolz. "),
        ([], FLASK, "", "uv.lock was made for flask>=3. "),
        (["flask>=3.1"], FLASK, "", "asks for flask>=3.1 and uv.lock was made for flask>=3. "),
        (["flask[async]>=3"], FLASK, "", "asks for flask[async]>=3 and"),
        (["x~=2.0.0"], '{ name = "x", specifier = "~=2.0" }', "", "asks for x~=2.0.0 and"),
        (["x; platform_machine == 'x86_64'"], "", "", "asks for x. "),
        (["x; platform_machine == 'aarch64'"], "", "", "asks for x. "),
        (["flask>=3 ; python_version < '3.12'"], FLASK, "", "uv.lock was made for flask>=3. "),
        (
            ["lib"],
            f'{{ name = "lib", {GIT % "tag=v0"} }}',
            FROM_GIT,
            "asks for lib @ v1 and uv.lock was made for lib @ v0.",
        ),
        (["lib"], '{ name = "lib" }', FROM_GIT, "asks for lib @ v1 and uv.lock was made for lib. "),
        (["x @ https://e.org/x-2.whl"], '{ name = "x", url = "https://e.org/x-1.whl" }', "", "asks for x @ x-2.whl"),
    ],
)
def test_a_lock_that_is_older_than_its_project_is_refused(
    tmp_path: Path, asked: list[str], known: str, sources: str, says: str
) -> None:
    said = refusal(project(tmp_path, asked, known, sources))
    assert said.startswith(f"{tmp_path}/uv.lock is out of date: ")
    assert says in said
    assert said.endswith("uv lock")


def test_dependencies_that_a_build_computes_are_not_compared(tmp_path: Path) -> None:
    written(tmp_path, "pyproject.toml", PROJECT + 'dynamic = ["dependencies"]\n')
    dependencies.check(written(tmp_path, "uv.lock", f"{LOCK}[package.metadata]\nrequires-dist = [{FLASK}]\n"))


def test_a_lock_of_another_project_or_of_none_is_refused(tmp_path: Path) -> None:
    lock = written(tmp_path, "uv.lock", LOCK.replace('"shop"', '"other"'))
    assert f"{tmp_path}/pyproject.toml is not there" in refusal(lock)
    written(tmp_path, "pyproject.toml", PROJECT)
    assert "is the lock of other, but" in refusal(lock)
    # uv would install nothing, without a word.
    written(tmp_path, "pyproject.toml", "[tool.ruff]\nline-length = 100\n")
    assert "no table [project]" in refusal(lock)


def test_a_requirement_that_is_none_is_refused_in_words(tmp_path: Path) -> None:
    assert "cannot be read: " in refusal(project(tmp_path, ["flask==>3"], ""))


def test_members_of_a_workspace_are_looked_at_too(tmp_path: Path) -> None:
    written(tmp_path, "pyproject.toml", '[tool.uv.workspace]\nmembers = ["lib"]\n')
    member = '[[package]]\nname = "lib"\nversion = "1"\nsource = { editable = "lib" }\n[package.metadata]\n'
    lock = written(tmp_path, "uv.lock", f"version = 1\n{member}requires-dist = [{FLASK}]\n")
    assert "has lib from lib, which is not in the source" in refusal(lock)
    (tmp_path / "lib").mkdir()
    written(tmp_path / "lib", "pyproject.toml", PROJECT + 'dependencies = ["flask>=3"]\n')
    dependencies.check(lock)
    written(tmp_path / "lib", "pyproject.toml", PROJECT + 'dependencies = ["flask>=4"]\n')
    assert f"{tmp_path}/lib/pyproject.toml asks for flask>=4" in refusal(lock)


def make_wheel(directory: Path, name: str) -> str:
    """Write a wheel without any content and return its SHA-256."""
    file = directory / f"{name}-1.0-py3-none-any.whl"
    parts = {
        f"{name}.py": "",
        f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{name}-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}-1.0.dist-info/RECORD": "",
    }
    with zipfile.ZipFile(file, "w") as wheel:
        for part, text in parts.items():
            wheel.writestr(part, text)
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_uv_installs_what_each_kind_says_and_leaves_the_source_alone(tmp_path: Path) -> None:
    """With the real uv and no network: packages are added, never removed; neither groups nor the app itself are."""
    source, venv = tmp_path / "source", tmp_path / "venv"
    source.mkdir()
    names = ("locked", "dev", "standard", "hashed", "asked", "server")
    hashes = {name: make_wheel(source, name) for name in names}
    wheels = {name: f"{name}-1.0-py3-none-any.whl" for name in names}
    written(
        source,
        "pyproject.toml",
        PROJECT.replace("3.10", "3.8")
        + 'dependencies = ["locked"]\n[build-system]\nrequires = ["none"]\nbuild-backend = "none"\n'
        + '[dependency-groups]\ndev = ["dev"]\n[tool.uv]\nprerelease = "allow"\n[tool.uv.sources]\n'
        + "".join(f'{name} = {{ path = "{wheels[name]}" }}\n' for name in ("locked", "dev")),
    )
    written(source, ".python-version", "2.7\n")
    entry = f'name = "standard"\nversion = "1.0"\n[packages.archive]\npath = "{wheels["standard"]}"\n'
    written(
        source,
        "pylock.toml",
        f'{PYLOCK}[[packages]]\n{entry}[packages.archive.hashes]\nsha256 = "{hashes["standard"]}"\n',
    )
    for name in ("hashed", "server"):
        written(source, f"{name}.txt", f"./{wheels[name]} --hash=sha256:{hashes[name]}\n")
    (source / "asked").mkdir()
    reference = f"asked @ {(source / wheels['asked']).as_uri()}"
    written(source / "asked", "pyproject.toml", f"{PROJECT}dependencies = [{json.dumps(reference)}]\n")
    environment = {"PATH": os.environ["PATH"], "UV_CACHE_DIR": str(tmp_path / "cache"), "UV_OFFLINE": "1"}
    environment |= {"UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}

    def call(*command: str, where: Path) -> None:
        done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    call(UV, "lock", "--no-config", "--prerelease", "allow", "--python", sys.executable, where=source)
    call(UV, "venv", "--python", sys.executable, str(venv), where=tmp_path)
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    environment |= dependencies.variables(str(venv))
    for file in ("hashed.txt", "uv.lock", "pylock.toml", "asked/pyproject.toml", "server.txt"):
        dependencies.check(source / file)
        call(*dependencies.install(UV, str(venv), str(source / file)), where=source)
    installed = {path.name.partition("-")[0] for path in venv.glob("lib/python*/site-packages/*.dist-info")}
    assert installed == {*names} - {"dev"}
    assert list(venv.glob("lib/python*/site-packages/__pycache__/locked.*.pyc"))
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before
    # An included file is not looked into by check().
    written(source, "loose.txt", f"./{wheels['server']}\n")
    included = written(source, "including.txt", "-r loose.txt\n")
    dependencies.check(included)
    with pytest.raises(AssertionError, match="--require-hashes"):
        call(*dependencies.install(UV, str(venv), str(included)), "--reinstall", where=source)
    # Tampered with: refused by its hash.
    for file in ("uv.lock", "pylock.toml", "server.txt"):
        text = (source / file).read_text(encoding="utf-8")
        for digest in hashes.values():
            text = text.replace(digest, 64 * "0")
        written(source, file, text)
        shutil.rmtree(tmp_path / "cache")
        with pytest.raises(AssertionError, match="Hash mismatch"):
            call(*dependencies.install(UV, str(venv), str(source / file)), "--reinstall", where=source)

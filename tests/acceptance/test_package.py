"""What was installed is what runs."""

import json

from tests.acceptance.conftest import PACKAGES, ROOT, SOURCES


def test_the_wheel_is_imported_and_not_the_tree(prompt_in, environment):
    prompt = prompt_in("package")
    code = (
        "import benchmarks, debias, json, simulators\n"
        "print(json.dumps([p.__file__ for p in (benchmarks, debias, simulators)]))"
    )
    for path in json.loads(prompt.run("python", "-c", code)):
        assert path.startswith(f"{environment}/lib"), path
    for file in ("py.typed", "diagnosis/templates", "serve/page.html"):
        code = "import debias, sys; print(debias.__path__[0] + '/' + sys.argv[1])"
        path = prompt.run("python", "-c", code, file).strip()
        prompt.run("test", "-e", path)


def test_each_command_says_what_it_is(prompt_in):
    prompt = prompt_in("package")
    version = prompt.debias("--version")
    assert version.startswith("debias ")
    for package in ("debias", "simulators", "benchmarks"):
        assert prompt.run("python", "-m", package, "--version") == version
    assert "main: " in prompt.run("python", "-m", "benchmarks", "list")
    assert "ndcg@5" in prompt.run("python", "-m", "benchmarks", "table", "main")


def test_the_wheel_says_what_it_is_for(prompt_in):
    code = (
        "import importlib.metadata, json\n"
        "found = importlib.metadata.metadata('debias-ranking')\n"
        "print(json.dumps([*found.items()]))"
    )
    said = json.loads(prompt_in("package").run("python", "-c", code))
    found = {name: value for name, value in said if name != "Classifier"}
    assert found["License"] == "Apache-2.0" and found["Author"]
    assert "position bias" in found["Keywords"].split(",")
    classifiers = [value for name, value in said if name == "Classifier"]
    for line in ("Typing :: Typed", "Programming Language :: Python :: 3.12"):
        assert line in classifiers


def test_there_is_one_version(prompt_in):
    version = prompt_in("package").debias("--version").split()[1]
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    changed = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in cited
    assert changed.startswith(f"# Changelog\n\n## {version}\n")


def test_the_image_copies_every_package():
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in (*PACKAGES, *SOURCES):
        assert any(line.startswith("COPY") and name in line for line in lines), name
        assert f"!{name}" in ignored

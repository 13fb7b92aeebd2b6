"""What was installed is what runs."""

import json


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

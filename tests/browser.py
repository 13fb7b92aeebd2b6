"""Pages in a real browser: what it draws, and what axe says of them."""

import json
import re
import shutil
import subprocess
from importlib.resources import files

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice")


def browse(path, *flags):
    """What Chromium prints of a page."""
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={path.parent / 'profile'}",
        *flags,
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def violations(text, folder):
    """What axe finds wrong with a page: rule and the elements, each as a line."""
    axe = files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    run = f"""axe.run(document, {{runOnly: {list(RULES)}}}).then(found => {{
      const wrong = found.violations.map(
        each => each.id + ": " + each.nodes.map(node => node.html).join(" "));
      document.title = JSON.stringify([found.passes.length, wrong]);
      document.body.replaceChildren();
    }});"""
    end = "</body>"
    assert end in text
    path = folder / "page.html"
    scripts = f"<script>{axe}</script><script>{run}</script>{end}"
    path.write_text(text.replace(end, scripts), encoding="utf-8")
    dom = browse(path, "--dump-dom", "--virtual-time-budget=20000")
    passes, wrong = json.loads(re.search(r"<title>(\[.*?)</title>", dom, re.S)[1])
    assert passes > 10  # it was run
    return wrong

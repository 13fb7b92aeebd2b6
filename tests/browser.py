"""Pages in a real browser: what it draws, and what axe says of them."""

import html
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


def in_frame(text, folder, width, value, height=1600):
    """The value of a JavaScript expression about `inner`, the page in a frame.

    A window is never as narrow as a phone; a frame may be.
    """
    path = folder / "frame.html"
    path.write_text(
        f"""<!doctype html><title>none</title>
        <iframe style="width: {width}px; height: {height}px; border: 0"
          srcdoc="{html.escape(text)}"></iframe>
        <script>onload = () => setTimeout(() => {{
          const inner = document.querySelector("iframe").contentDocument;
          document.title = JSON.stringify({value});
        }}, 100);</script>""",
        encoding="utf-8",
    )
    dom = browse(path, "--dump-dom", "--virtual-time-budget=20000")
    return json.loads(html.unescape(re.search(r"<title>([^<]*)", dom)[1]))


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

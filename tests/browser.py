"""Pages of reports: as text, and in a real browser."""

import base64
import hashlib
import html.parser
import json
import os
import shutil
import subprocess

import pytest

HOSTILE = [
    "<script>document.title = 'run'</script>",
    "</script><script>document.title = 'run'</script>",
    "<img src=x onerror=\"document.title = 'run'\">",
    "\"><svg onload=document.title='run'>",
    "' onmouseover='document.title=1",
    "{{ 7 * 7 }}{% raw %}",
    "<!--",
    "]]>",
    "&lt;b&gt;",
    "</style><style>body { display: none }</style>",
    "<iframe src=javascript:document.title='run'></iframe>",
    "<a href=javascript:document.title='run'>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=document.title='run'>",
    "<svg><script>document.title = 'run'</script></svg>",
    "<svg/onload=document.title='run'>",
    "<input autofocus onfocus=document.title='run'>",
    "<details open ontoggle=document.title='run'>",
    "<meta http-equiv=refresh content='0;url=http://x.invalid'>",
    "<base href=http://x.invalid/>",
    "<link rel=stylesheet href=http://x.invalid/a.css>",
    "<object data=http://x.invalid></object>",
    "<template><script>document.title = 'run'</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=document.title=1>'>",
    "<textarea></textarea><script>document.title = 'run'</script>",
    "--><script>document.title = 'run'</script>",
    "<![CDATA[<script>document.title = 'run'</script>",
    "${document.title = 'run'}",
    "\\u003cscript>document.title = 'run'\\u003c/script>",
    "&#60;script&#62;document.title = 'run'&#60;/script&#62;",
    "__proto__",
    "constructor",
    "javascript:document.title='run'",
    "\x00\x01\x1b[31m\x7f",
    "\ud7ff\ufffe\u2028\u2029",
    "\u202eright to left",
    "x" * 10_000,
]


class Page(html.parser.HTMLParser):
    """Elements of a page with their attributes, and the text of those that are looked at."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append((tag, dict(attrs).get("id")))

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        for tag, name in self._open:
            for key in {tag, name} - {None}:
                self.texts[key] = self.texts.get(key, "") + data

    @property
    def said(self):
        """What a script of a test has left."""
        return next(attributes["data-said"] for tag, attributes in self.elements if tag == "body")

    @property
    def data(self):
        return json.loads(self.texts["report-data"])


BROWSER = shutil.which("chromium")
in_a_browser = pytest.mark.skipif(
    BROWSER is None and "METABOLISMGRAPH_REQUIRE_BROWSER" not in os.environ, reason="Chromium is not installed"
)


def opened(path, tmp_path, width=800):
    """A page after its scripts, what the console says, and what the page, not the browser itself, asked for."""
    log = tmp_path / "net.json"
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=5000"]
    command += [
        f"--window-size={width},900",
        f"--log-net-log={log}",
        "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    events = [event.get("params") or {} for event in json.loads(log.read_text())["events"]]
    asked = {event["url"] for event in events if "url" in event and event.get("initiator", "not an origin") == "null"}
    return Page(done.stdout), [line for line in done.stderr.splitlines() if "CONSOLE" in line], asked


def scripted(path, script):
    """A copy of a page in which a script of a test is executed at the end, as if a reader did what it does."""
    mark = f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
    text = path.read_text(encoding="utf-8").replace("script-src ", f"script-src {mark} ", 1)
    copy = path.with_name("scripted.html")
    copy.write_text(text.replace("</body>", f"<script>{script}</script>\n</body>"), encoding="utf-8")
    return copy

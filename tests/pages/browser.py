"""A page as Chromium shows it, without a network."""

import json
import pathlib
import shutil
import subprocess

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), "")
QUIET = ("gpu", "quic", "background-networking", "component-update", "sync")
FLAGS = (
    *("--headless", "--no-sandbox", "--no-first-run", "--hide-scrollbars", "--dump-dom"),
    *(f"--disable-{name}" for name in QUIET),
    *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=20000"),
)
# A window is at least 500 pixels wide, a frame is not; one made of a text may be looked into.
OUTER = """<body><script>
const frame = document.createElement("iframe");
frame.style = "border:0;height:2000px;width:WIDTHpx";
frame.srcdoc = PAGE;
document.body.append(frame);
frame.onload = function () {
  const inner = frame.contentDocument;
  inner.querySelectorAll("details").forEach(function (one) { one.open = true; });
  setTimeout(function () {
    const head = inner.querySelector("table.sortable th.number");
    if (head) head.click();
    const rows = Array.from(inner.querySelectorAll("table.sortable tbody tr"));
    const found = {
      width: inner.documentElement.scrollWidth,
      figures: inner.querySelectorAll(".figure").length,
      drawn: inner.querySelectorAll('.figure[data-drawn="yes"] .main-svg').length > 0
        ? inner.querySelectorAll('.figure[data-drawn="yes"]').length : 0,
      first: rows.map(function (row) { return row.cells[0].textContent; }),
      images: inner.querySelectorAll("img").length,
    };
    document.body.textContent = "";
    document.body.append("FOUND" + JSON.stringify(found) + "END");
  }, 5000);
};
</script>"""


def look(page: pathlib.Path, width: int, folder: pathlib.Path):
    """(what of `page` is seen in a frame of `width` pixels, lines of the console)."""
    if not PROGRAM:
        pytest.skip("there is no Chromium here")
    text = json.dumps(page.read_text()).replace("<", "\\u003c")
    outer = folder / f"outer-{width}.html"
    outer.write_text(OUTER.replace("WIDTH", str(width)).replace("PAGE", text))
    profile = f"--user-data-dir={folder / f'profile-{width}'}"
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND"
    command = [PROGRAM, *FLAGS, nowhere, "--window-size=1300,900", profile, outer.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    said = [line for line in ended.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(ended.stdout.partition("FOUND")[2].partition("END")[0]), said

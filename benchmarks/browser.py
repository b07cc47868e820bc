"""What the feature browser costs in a real ComfyUI and Chromium: `python benchmarks/browser.py`; prints JSON.

start           milliseconds until ComfyUI's page stands there, with and without the pack's script (its line in the
                server's list of extensions), in turns; `difference` is the median of the differences of a round
server_start    milliseconds in which the server imports what the browser's part of the pack adds to it
scripts         what the page loads of the pack at its start, and `script_bytes`, all of it together
tab             milliseconds from a click on the tab of a fresh page until features are listed, and until pictures are
                seen: `first` with a server that has not yet opened the atlas, then the worst of others
search          from the last key until the answer is listed, and the server's share: median and worst

The atlas has 65,536 features with 20 top and 20 spread examples each (`atlas_open.py`). `load` is what else the machine
was doing, in processes that wait for a processor.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]

from benchmarks.atlas_open import SEARCHES, TOP, build  # noqa: E402
from tests.host.comfy_server import COMFYUI, ComfyServer  # noqa: E402
from tests.web.browser import Browser, missing  # noqa: E402

FOLDER = "fluxtionary-benchmark"
OURS = re.compile(
    rf"import time:\s+(\d+) \|\s+\d+ \|\s+\S*{FOLDER}\.(?:browser\b|nodes\.(?:routes|panels)$)", re.MULTILINE
)


def starts(browser: Browser, rounds: int) -> dict[str, Any]:
    """Starts of the page with and without the pack's script, in turns."""
    browser.call("start")  # warms up
    found: dict[bool, list[dict]] = {True: [], False: []}
    for number in range(rounds):
        for without in (False, True) if number % 2 else (True, False):
            found[without].append(browser.call("start", without=without))
    times = {without: [one["ready"] for one in all_] for without, all_ in found.items()}
    differences = sorted(one - other for one, other in zip(times[False], times[True], strict=True))
    files = [file for file in found[False][-1]["files"] if FOLDER in file["name"]]
    assert files and not any(FOLDER in file["name"] for one in found[True] for file in one["files"])
    return {
        "start": {
            "with": round(statistics.median(times[False])),
            "without": round(statistics.median(times[True])),
            "difference": round(statistics.median(differences), 1),
            "differences": [round(value) for value in differences],
        },
        "scripts": {file["name"].split(FOLDER)[-1]: file["bytes"] for file in files},
        "script_bytes": sum(file["bytes"] for file in files if re.search(r"\.m?js$", file["name"])),
    }


def latencies(browser: Browser, rounds: int) -> dict[str, Any]:
    runs = [browser.call("latency", atlas="large", searches=SEARCHES) for _ in range(rounds)]
    tabs = {
        name: {"first": runs[0][name], "worst": max(one[name] for one in runs[1:])} for name in ("listed", "pictures")
    }
    found: dict[str, Any] = {"tab": {n: {k: round(v) for k, v in times.items()} for n, times in tabs.items()}}
    # of one page's searches the first reads what all others use
    searches = [one for run in runs for one in run["searches"]]
    for name in ("listed", "server"):
        times = [one[name] for one in searches]
        found.setdefault("search", {})[name] = {
            "median": round(statistics.median(times)),
            "worst": round(max(times)),
            "slowest": max(searches, key=lambda one: one[name])["text"],
        }
    return found


def measure(atlas: Path, rounds: int) -> dict[str, Any]:
    assert COMFYUI is not None
    os.environ["PYTHONPROFILEIMPORTTIME"] = "1"
    with tempfile.TemporaryDirectory() as base:
        server = ComfyServer(COMFYUI, Path(base), FOLDER, {})
        atlases = Path(base) / "models" / "flux_atlases"
        atlases.mkdir(parents=True)
        (atlases / "large").symlink_to(atlas.resolve(), target_is_directory=True)
        server.start()
        browser = Browser(f"http://127.0.0.1:{server.port}", Path(base) / "browser.log")
        try:
            imported = sum(int(own) for own in OURS.findall(server.log())) / 1000
            found = starts(browser, rounds) | {"server_start": round(imported, 1)} | latencies(browser, 3)
        finally:
            browser.stop()
            server.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=65_536)
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, help="keep the atlas here, or use the one that is here")
    parser.add_argument("--rounds", type=int, default=7, help="starts of each kind")
    options = parser.parse_args()
    if (reason := missing()) is not None:
        raise SystemExit(reason)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "atlas"
        if not folder.exists():
            build(folder, options.features, options.pictures)
        found = {"features": options.features, "examples": TOP, **measure(folder, options.rounds)}
    print(json.dumps(found | {"load": round(os.getloadavg()[1], 1)}, indent=2))


if __name__ == "__main__":
    main()

"""Take a picture of an audit page: `python docs/screenshot.py report.html out.png --width 1280 [--dark]`.

The README's pictures, of the demo's report (`make demo`):

    python docs/screenshot.py demo-run/report/report.html docs/report.png --height 730
    python docs/screenshot.py demo-run/report/report.html docs/suspects.png --section suspects --height 1150

Needs Selenium, chromium and chromedriver. The page is a local file; the browser is started without a network service
of its own and with a profile that is thrown away.
"""

from __future__ import annotations

import argparse
import base64
import shutil
import tempfile
from pathlib import Path
from typing import Any

QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def browser(profile: str) -> Any:
    """A headless Chromium with `profile` as its folder."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "/usr/bin/chromium"
    for argument in (*QUIET, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    service = webdriver.ChromeService(shutil.which("chromedriver") or "/usr/bin/chromedriver")
    return webdriver.Chrome(options, service)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take a picture of an audit page.")
    parser.add_argument("report", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1280, help="width of the window, px")
    parser.add_argument("--height", type=int, default=0, help="height of the picture, px (default: the whole page)")
    parser.add_argument("--section", help="id of the element that the picture starts with")
    parser.add_argument("--dark", action="store_true", help="as a reader with a dark theme sees it")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile:
        driver = browser(profile)
        try:
            theme = {"name": "prefers-color-scheme", "value": "dark" if given.dark else "light"}
            window = {"width": given.width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
            driver.get(given.report.resolve().as_uri())
            size = driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
            start = "document.getElementById(arguments[0]).getBoundingClientRect().top + scrollY"
            top = driver.execute_script(f"return {start}", given.section) if given.section else 0
            clip = {"x": 0, "y": top, "width": given.width, "height": given.height or size["height"] - top, "scale": 1}
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        finally:
            driver.quit()
    given.out.write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()

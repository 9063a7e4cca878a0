"""Install Chromium for the browser tests where it is missing; a second call does nothing.

Standard library only. Needs root, and Debian (or what has its apt); elsewhere it says what to do, and the tests say that they were skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """Path of the browser, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def main() -> None:
    """Install it, or say what to do."""
    if chromium():
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        print("The browser tests need Chromium (on Debian, as root: apt-get install chromium); they will be skipped.")
        return
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]):
        if subprocess.run(command, env=environment, check=False, stdout=subprocess.DEVNULL).returncode:
            print(f"Chromium could not be installed ({' '.join(command)}); the browser tests will be skipped.")
            return


if __name__ == "__main__":
    main()

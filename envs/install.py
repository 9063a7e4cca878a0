"""Make the virtual environment from a hash-checked lock; a second call does nothing.

Run by the Makefile with the system's Python, so it uses the standard library only.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# download of the wheel, and of everything, in MB (x86_64 Linux, measured for torch 2.13.0)
SIZES = {"cpu": (192, 400), "cuda": (527, 2900)}
CPU_PYTHONS = ((3, 11), (3, 12))
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def choose_build() -> str:
    """cuda where an NVIDIA driver is at work or no CPU build is locked for this Python; cpu elsewhere."""
    if Path("/dev/nvidiactl").exists():
        return "cuda"
    locked = platform.machine() == "x86_64" and sys.version_info[:2] in CPU_PYTHONS
    return "cpu" if locked else "cuda"


def requirement_blocks(text: str) -> list[str]:
    """The lock cut into one text per package, comments left out."""
    blocks: list[str] = []
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if line and not line.startswith(" "):
            blocks.append(line)
        elif blocks:
            blocks[-1] += "\n" + line
    return blocks


def pip_install(venv: Path, requirements: str, *options: str) -> bool:
    """Install locked requirements; True if all went well."""
    listing = venv / "installing.txt"
    listing.write_text(requirements + "\n", encoding="utf-8")
    command = [str(venv / "bin" / "python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--require-hashes", "-r", str(listing), *options], check=False).returncode == 0
    listing.unlink()
    return done


def install(venv: Path, lock: Path, mark: Path) -> None:
    """Install a lock unless the mark says that it is installed; the mark is written last.

    Raises:
        SystemExit: the packages could not be installed.
    """
    text = lock.read_text(encoding="utf-8")
    if mark.is_file() and mark.read_text(encoding="utf-8") == text:
        return
    blocks = requirement_blocks(text)
    torch = [block for block in blocks if block.startswith("torch==")]
    rest = [block for block in blocks if not block.startswith("torch==")]
    print(f"Installing {len(blocks)} packages of envs/{lock.name} into {venv}; this takes a minute or two ...", flush=True)
    # the CPU build has an index of its own, which is asked only where the configured ones do not have it
    if torch and not pip_install(venv, torch[0]) and not pip_install(venv, torch[0], "--extra-index-url", CPU_INDEX):
        raise SystemExit(f"torch could not be installed; is there a way to {CPU_INDEX} or to PyPI, and room on the disk?")
    if not pip_install(venv, "\n".join(rest)):
        raise SystemExit(f"the packages of envs/{lock.name} could not be installed; the lines above say why")
    temporary = mark.with_suffix(".part")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(mark)


def main() -> None:
    """Make or complete the environment."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=HERE.parent / ".venv", help="where to make it (default: .venv)")
    parser.add_argument("--torch", choices=("auto", "cpu", "cuda"), default=os.environ.get("TORCH_BUILD", "auto"))
    parser.add_argument("--tests", action="store_true", help="also what the tests need")
    options = parser.parse_args()
    if sys.version_info < (3, 11):
        raise SystemExit(f"Python 3.11 or later is needed, this is {platform.python_version()}; try `make PYTHON=python3.12 demo`")
    venv = options.venv
    build = choose_build() if options.torch == "auto" else options.torch
    wheel, everything = SIZES[build]
    if not (venv / "gyri.lock").is_file():
        print(f"torch 2.13.0, {build.upper()} build: {wheel} MB to download, with all packages about {everything} MB.", flush=True)
        print("(TORCH_BUILD=cpu or TORCH_BUILD=cuda chooses.)", flush=True)
        if subprocess.run([sys.executable, "-m", "venv", str(venv)], check=False).returncode:
            raise SystemExit("no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv")
    install(venv, HERE / f"{build}.lock", venv / "gyri.lock")
    if options.tests:
        install(venv, HERE / "test.lock", venv / "gyri-test.lock")


if __name__ == "__main__":
    main()

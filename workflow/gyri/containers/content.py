"""What an image holds, as data: the base's packages, Python, the installed packages with the hashes of their files.

Run inside an image, by the Python whose packages count. Standard library only, and no import of gyri: it is copied into the build.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import json
import platform
import re
import subprocess
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

# what differs from one installation of the same files to the next
NOISE = ("INSTALLER", "RECORD", "REQUESTED", "direct_url.json")


def rows(record: str) -> list[tuple[str, str]]:
    """The files of a package and their hashes, out of its RECORD, without what differs between installations.

    Args:
        record: text of the file RECORD.

    Returns:
        Pairs of path and hash ("sha256=..."), sorted.
    """
    found = [(row[0], row[1]) for row in csv.reader(record.splitlines()) if len(row) >= 2]
    return sorted((path, digest) for path, digest in found if not path.endswith(".pyc") and Path(path).name not in NOISE)


def packages(found: list[Distribution]) -> dict[str, dict[str, str]]:
    """Version and hash over the files of every package.

    Args:
        found: the distributions of an environment, in any order.

    Returns:
        By normalized name: `version`, and `record`, the sha256 over its rows.
    """
    listed = {}
    for item in found:
        name = re.sub(r"[-_.]+", "-", item.metadata["Name"]).lower()
        text = "".join(f"{path},{digest}\n" for path, digest in rows(item.read_text("RECORD") or ""))
        listed[name] = {"version": item.version, "record": hashlib.sha256(text.encode()).hexdigest()}
    return dict(sorted(listed.items()))


def damaged(found: list[Distribution]) -> list[str]:
    """Files whose bytes are not those that their package's RECORD promises, or that are missing."""
    wrong = []
    for item in found:
        for path, digest in rows(item.read_text("RECORD") or ""):
            kind, _, expected = digest.partition("=")
            file = Path(str(item.locate_file(path)))
            if not kind:
                continue
            if not file.is_file():
                wrong.append(f"{path}: missing")
                continue
            with file.open("rb") as handle:
                got = base64.urlsafe_b64encode(hashlib.file_digest(handle, kind).digest()).rstrip(b"=").decode()
            if got != expected:
                wrong.append(f"{path}: other bytes than its package has")
    return wrong


def base_packages() -> dict[str, str]:
    """Versions of the Debian packages that the image stands on; empty for a base that is no Debian."""
    try:
        command = ["dpkg-query", "--show", "--showformat", "${Package} ${Version}\n"]
        listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return {}
    return dict(sorted(line.split(" ", 1) for line in listing.splitlines()))


def libraries() -> dict[str, str]:
    """Versions of torch, CUDA and cuDNN, as torch itself reports them; empty without torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return {}
    found = {"torch": str(torch.__version__)}
    if torch.version.cuda:
        number = torch.backends.cudnn.version()
        major, rest = divmod(number, 10000 if number >= 90000 else 1000)
        found |= {"cuda": torch.version.cuda, "cudnn": f"{major}.{rest // 100}.{rest % 100}"}
    return found


def content(origin: str) -> dict[str, Any]:
    """All of it.

    Args:
        origin: the pinned image that served as base; empty where the base is Debian itself.
    """
    found = {
        "base": base_packages(),
        "python": platform.python_version(),
        "packages": packages(list(distributions())),
        **libraries(),
    }
    return {**found, "from": origin} if origin else found


def identity(value: dict[str, Any]) -> str:
    """The sha256 of the content as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def main() -> None:
    """Write the content and print its identity, or print it with the damaged files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="origin", default="", help="the pinned image that served as base")
    parser.add_argument("--write", type=Path, help="file to write; its identity is printed")
    options = parser.parse_args()
    value = content(options.origin)
    if options.write:
        options.write.write_text(json.dumps(value, sort_keys=True, indent=1) + "\n", encoding="utf-8")
        print(identity(value))
    else:
        print(json.dumps({"content": value, "damaged": damaged(list(distributions()))}))


if __name__ == "__main__":
    main()

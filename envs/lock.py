"""Make the locks anew from the .in files (needs `uv`; see CONTRIBUTING.md). Versions stay as they are unless --upgrade is given.

torch has one lock per build: with the nvidia packages listed pip would always install them, without them the CUDA wheel is refused.
The images' locks are cut out of the same resolution, so that a package has one version everywhere.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
TORCH = "2.13.0"
# of download.pytorch.org/whl/cpu: torch-2.13.0+cpu for cp311 and cp312, manylinux_2_28_x86_64
CPU_HASHES = (
    "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b",
    "4ca4a9394b0c771238a4f73590fdbbc4debad85ed0fa63d026ae1b085da7d6e2",
)
# roc-validator asks for an older rich than import-linter; of it only the messages on the terminal use rich
TEST_OVERRIDES = "rich>=14\n"
COMPILE = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
PLAIN = ["--no-annotate", "--no-header", "--no-emit-index-url"]


def cut(text: str) -> list[str]:
    """A lock cut into one text per package with its hashes, comments left out."""
    blocks: list[str] = []
    for line in text.splitlines():
        if line.startswith(" ") and blocks:
            blocks[-1] += "\n" + line
        elif line and not line.startswith("#"):
            blocks.append(line)
    return blocks


def compile_lock(sources: list[Path], constraints: list[str], *options: str) -> list[str]:
    """Resolve requirements; one text per package with its hashes.

    Args:
        sources: files of requirements.
        constraints: blocks of a lock whose versions are kept.
        options: for uv.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as kept:
        kept.write("\n".join(line for line in _without_hashes(constraints)))
        kept.flush()
        command = [*COMPILE, *PLAIN, *map(str, sources), "-c", kept.name, *options]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    # packages that only torch or other platforms would bring are resolved as "never"
    return [block for block in cut(done.stdout) if "sys_platform == 'never'" not in block.splitlines()[0]]


def _without_hashes(blocks: list[str]) -> list[str]:
    return [block.splitlines()[0].removesuffix("\\").strip() for block in blocks]


def read_lock(name: str) -> list[str]:
    """The blocks of a lock that is there; none where it is not."""
    path = HERE / name
    return cut(path.read_text(encoding="utf-8")) if path.is_file() else []


def write_lock(name: str, title: str, blocks: list[str]) -> None:
    """Write one lock, packages in order of their names."""
    head = f"# {title}\n# Made by `make lock`; every file is checked against its hash when installed.\n"
    (HERE / name).write_text(head + "\n".join(sorted(blocks, key=str.lower)) + "\n", encoding="utf-8")


def main() -> None:
    """Resolve once, then add each build of torch, cut out the images, then what the tests need."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions instead of those locked now")
    upgrade = parser.parse_args().upgrade
    now = [] if upgrade else [block for block in read_lock("cuda.lock") if not block.startswith("torch==")]
    with tempfile.TemporaryDirectory() as folder:
        never, torch = Path(folder) / "never.txt", Path(folder) / "torch.txt"
        never.write_text("torch ; sys_platform == 'never'\n" + TEST_OVERRIDES, encoding="utf-8")
        torch.write_text(f"torch=={TORCH}\n", encoding="utf-8")
        base = compile_lock([HERE / "requirements.in"], now)
        hashes = " \\\n".join(f"    --hash=sha256:{digest}" for digest in CPU_HASHES)
        cpu = [*base, f"torch=={TORCH}+cpu \\\n{hashes}"]
        write_lock("cpu.lock", "Snakemake, gyri and the CPU build of torch (x86_64 Linux, Python 3.11 and 3.12)", cpu)
        cuda = compile_lock([HERE / "requirements.in", torch], [*base, *now])
        write_lock("cuda.lock", "Snakemake, gyri and the CUDA build of torch", cuda)
        images = {"torch": compile_lock([HERE / "torch.in", torch], cuda), "tables": compile_lock([HERE / "tables.in"], cuda)}
        write_lock("torch.lock", "The image `torch`: training and prediction, with the CUDA build of torch", images["torch"])
        write_lock("tables.lock", "The image `tables`: every other stage", images["tables"])
        known = {block.split("==")[0] for block in base}
        kept = base if upgrade else [*base, *read_lock("test.lock")]
        tests = compile_lock([HERE / "test.in"], kept, "--override", str(never))
        tests = [block for block in tests if block.split("==")[0] not in known]
        write_lock("test.lock", "What the tests need beside cpu.lock or cuda.lock", tests)


if __name__ == "__main__":
    main()

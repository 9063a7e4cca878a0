"""Make the locks anew from requirements.in and test.in (needs `uv`; see CONTRIBUTING.md).

torch has one lock per build: with the nvidia packages listed pip would always install them, without them the CUDA wheel is refused.
"""

from __future__ import annotations

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
COMPILE = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--generate-hashes"]
PLAIN = ["--no-annotate", "--no-header", "--no-emit-index-url"]


def compile_lock(source: Path, *options: str) -> list[str]:
    """Resolve requirements; one text per package with its hashes."""
    done = subprocess.run([*COMPILE, *PLAIN, str(source), *options], check=True, capture_output=True, text=True)
    blocks: list[str] = []
    for line in done.stdout.splitlines():
        if line.startswith(" ") and blocks:
            blocks[-1] += "\n" + line
        elif line and not line.startswith("#"):
            blocks.append(line)
    # packages that only torch or other platforms would bring are resolved as "never"
    return [block for block in blocks if "sys_platform == 'never'" not in block.splitlines()[0]]


def write_lock(name: str, title: str, blocks: list[str]) -> None:
    """Write one lock, packages in order of their names."""
    head = f"# {title}\n# Made by `make lock`; every file is checked against its hash when installed.\n"
    (HERE / name).write_text(head + "\n".join(sorted(blocks, key=str.lower)) + "\n", encoding="utf-8")


def main() -> None:
    """Resolve once, then add each build of torch, then what the tests need."""
    with tempfile.TemporaryDirectory() as folder:
        never, base_lock, cuda = (Path(folder) / name for name in ("never.txt", "base.lock", "cuda.in"))
        never.write_text("torch ; sys_platform == 'never'\n", encoding="utf-8")
        base = compile_lock(HERE / "requirements.in")
        base_lock.write_text("\n".join(base) + "\n", encoding="utf-8")
        hashes = " \\\n".join(f"    --hash=sha256:{digest}" for digest in CPU_HASHES)
        cpu = [*base, f"torch=={TORCH}+cpu \\\n{hashes}"]
        write_lock("cpu.lock", "Snakemake, gyri and the CPU build of torch (x86_64 Linux, Python 3.11 and 3.12)", cpu)
        cuda.write_text(f"torch=={TORCH}\n" + (HERE / "requirements.in").read_text(encoding="utf-8"), encoding="utf-8")
        write_lock("cuda.lock", "Snakemake, gyri and the CUDA build of torch", compile_lock(cuda, "-c", str(base_lock)))
        known = {block.split("==")[0] for block in base}
        tests = compile_lock(HERE / "test.in", "-c", str(base_lock), "--override", str(never))
        write_lock(
            "test.lock", "What the tests need beside cpu.lock or cuda.lock", [b for b in tests if b.split("==")[0] not in known]
        )


if __name__ == "__main__":
    main()

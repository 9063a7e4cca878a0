"""Install real Apptainer and real Slurm on Debian 12; a second call does nothing.

Debian 12 has Slurm, and everything that Apptainer calls, but not Apptainer itself. Apptainer comes from Debian's unstable suite, of whichever
mirror this machine's own apt sources name, and gets a libc of its own: the system's libc is left alone.
Needs root only where something is missing. Standard library only: it runs before there is a virtual environment.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# a program that proves that the package is there
APPTAINER_PACKAGES = {
    "squashfs-tools": "mksquashfs",
    "squashfuse": "squashfuse_ll",
    "uidmap": "newuidmap",
    "fakeroot": "fakeroot",
    "fuse2fs": "fuse2fs",
    "debootstrap": "debootstrap",
    "patchelf": "patchelf",
}
SLURM_PACKAGES = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurm-client": "sbatch",
    "slurmdbd": "slurmdbd",
    "munge": "munged",
    "mariadb-server": "mariadbd",
}
UNSTABLE = ("apptainer", "libc6", "libseccomp2", "libsqlite3-0")
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu/apptainer/libc")
STARTER = Path("/usr/lib/x86_64-linux-gnu/apptainer/bin/starter")
ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SUBORDINATE_IDS = "root:200000:65536"


def say(text: str) -> None:
    """Print at once."""
    print(f"[install] {text}", flush=True)


def missing_packages() -> list[str]:
    """The Debian packages whose program is not on the machine."""
    wanted = APPTAINER_PACKAGES | SLURM_PACKAGES
    return [package for package, program in wanted.items() if not shutil.which(program, path=ADMIN_PATH)]


def apptainer_works() -> bool:
    """Whether `apptainer` and the name that older tools call it by, `singularity`, run."""
    for name in ("apptainer", "singularity"):
        program = shutil.which(name)
        if not program or subprocess.run([program, "--version"], capture_output=True, check=False).returncode:
            return False
    return True


def subordinate_ids_missing() -> bool:
    """Whether root has no range of user and group ids to give to containers that it builds."""
    files = (Path("/etc/subuid"), Path("/etc/subgid"))
    return os.geteuid() == 0 and not all(path.is_file() and "root:" in path.read_text(encoding="utf-8") for path in files)


def containers_can_mount() -> bool:
    """Whether this user may mount images through FUSE."""
    return os.access("/dev/fuse", os.R_OK | os.W_OK)


def run(*command: str, cwd: Path | None = None) -> None:
    """Run a command and show what it said only if it fails.

    Raises:
        SystemExit: it failed.
    """
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "PATH": f"{ADMIN_PATH}:{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    if done.returncode:
        raise SystemExit(f"{done.stdout}\nfailed ({done.returncode}): {' '.join(command)}")


@contextmanager
def no_services_started() -> Iterator[None]:
    """Keep packages from starting their services while they are installed: the tests start their own."""
    policy = Path("/usr/sbin/policy-rc.d")
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink()


def install_packages(packages: list[str]) -> None:
    """Install Debian 12's own packages, from the machine's own sources."""
    say(f"apt-get install {' '.join(packages)}")
    with no_services_started():
        run("apt-get", "-qq", "update")
        run("apt-get", "-qq", "install", "--yes", "--no-install-recommends", *packages)


def debian_mirror() -> str:
    """The mirror of Debian that this machine's apt uses.

    Raises:
        SystemExit: its sources name none.
    """
    command = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(COMPONENT)|$(CODENAME)|$(REPO_URI)"]
    for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        origin, component, codename, mirror = line.split("|", 3)
        if (origin, component) == ("Debian", "main") and "-" not in codename:
            return mirror
    raise SystemExit(
        "this machine's apt sources name no mirror of Debian; Apptainer for Debian 12 is taken from its unstable suite"
    )


def download_unstable(folder: Path) -> None:
    """Fetch packages of Debian unstable into a folder; apt checks their signatures. The machine's own lists stay as they are."""
    sources = folder / "sources.list"
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources.write_text(f"deb [signed-by={keys}] {debian_mirror()} unstable main\n", encoding="utf-8")
    (folder / "lists" / "partial").mkdir(parents=True)
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::lists": folder / "lists",
        "APT::Sandbox::User": "root",
        "APT::Update::Post-Invoke-Success::": "",
    }
    flags = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    run("apt-get", "-qq", *flags, "update")
    run("apt-get", "-qq", *flags, "download", *UNSTABLE, cwd=folder)


def install_apptainer() -> None:
    """Put Apptainer in its places, and the libraries that it needs into a folder that nothing else looks into."""
    say("Apptainer from Debian unstable, with a libc of its own")
    with tempfile.TemporaryDirectory(prefix="gyri-apptainer-") as name:
        folder = Path(name)
        download_unstable(folder)
        for package in UNSTABLE[1:]:
            run("dpkg", "-x", str(next(folder.glob(f"{package}_*.deb"))), str(folder / "libraries"))
        run("dpkg", "-x", str(next(folder.glob("apptainer_*.deb"))), str(folder / "apptainer"))
        shutil.copytree(folder / "libraries/usr/lib/x86_64-linux-gnu", LIBRARIES, symlinks=False, dirs_exist_ok=True)
        run("cp", "--archive", "--no-target-directory", str(folder / "apptainer"), "/")
    loader = LIBRARIES / "ld-linux-x86-64.so.2"
    for program in (Path("/usr/bin/apptainer"), STARTER):
        # RPATH, not RUNPATH: it must reach what the libraries need themselves
        run("patchelf", "--set-interpreter", str(loader), "--force-rpath", "--set-rpath", str(LIBRARIES), str(program))
    # the name that spython calls
    if not shutil.which("singularity"):
        Path("/usr/local/bin/singularity").symlink_to("/usr/bin/apptainer")


def give_subordinate_ids() -> None:
    """Let root build images in a user namespace, also where it lacks the capabilities to do without."""
    for path in (Path("/etc/subuid"), Path("/etc/subgid")):
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if "root:" not in text:
            path.write_text(f"{text}{SUBORDINATE_IDS}\n", encoding="utf-8")


def main() -> None:
    """Install what is missing, or say what root would have to install.

    Raises:
        SystemExit: something is missing and cannot be installed here.
    """
    begin = time.monotonic()
    packages, apptainer, ids = missing_packages(), not apptainer_works(), subordinate_ids_missing()
    if not containers_can_mount():
        raise SystemExit("/dev/fuse cannot be opened: images cannot be mounted (as root: modprobe fuse; chmod 666 /dev/fuse)")
    if not (packages or apptainer or ids):
        say("Slurm and Apptainer are there")
        return
    if os.geteuid():
        absent = packages + (["apptainer (also under the name singularity)"] if apptainer else [])
        raise SystemExit(f"missing: {', '.join(absent)}. Run as root: python3 tests/cluster/install.py")
    if "VERSION_CODENAME=bookworm" not in Path("/etc/os-release").read_text(encoding="utf-8") or platform.machine() != "x86_64":
        raise SystemExit("this script installs on Debian 12 (x86_64) only; elsewhere install Slurm and Apptainer yourself")
    if packages:
        install_packages(packages)
    if apptainer:
        install_apptainer()
    give_subordinate_ids()
    if not apptainer_works():
        raise SystemExit("Apptainer was installed but does not run; try: apptainer --version")
    say(f"done in {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    sys.exit(main())

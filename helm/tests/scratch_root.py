"""Puts what the image would contain into a directory for chroot: the program and the libraries that it needs."""

import json
import os
import pathlib
import re
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = ROOT / "target" / "debug" / "tern"
# The libraries in the base image gcr.io/distroless/cc-debian12: glibc and libgcc. The loader comes with glibc.
IN_THE_BASE = {"libc.so.6", "libm.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1"}
# The certificate authorities that everybody trusts, which the base image has too.
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
LOADER = re.compile(r"^ld-linux.*\.so\.\d$")


class Fault(Exception):
    """A fault of the image: the program would not run in it."""


def containerfile() -> tuple[pathlib.PurePosixPath, str]:
    """Returns the program's path in the image and its user. The Containerfile's last stage must have nothing else."""
    stages = re.split(r"^FROM ", (ROOT / "Containerfile").read_text(encoding="utf-8"), flags=re.M)[1:]
    build, last = stages[0], stages[-1]
    lines = [line for line in last.splitlines()[1:] if line and not line.startswith("#")]
    if [line.split()[0] for line in lines] != ["COPY", "USER", "ENTRYPOINT"]:
        raise Fault(f"the last stage is to copy the program and say how it runs, and no more: {lines}")
    target, user = lines[0].split()[-1], lines[1].split()[1]
    if json.loads(lines[2].split(maxsplit=1)[1]) != [target]:
        raise Fault(f"the entry point is not {target}")
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user):
        raise Fault(f"USER {user}: by numbers, and not root, or Kubernetes cannot tell that it is not")
    if "bookworm" not in build.split()[0] or not last.startswith("gcr.io/distroless/cc-debian12:"):
        raise Fault("build and run on the same Debian (bookworm is 12)")
    toolchain = re.search(r'rust-version = "(.+)"', (ROOT / "Cargo.toml").read_text(encoding="utf-8"))[1]
    if f"rust:{toolchain}-" not in build:
        raise Fault(f"built by another Rust than rust-version, {toolchain}")
    return pathlib.PurePosixPath(target), user


def can_run() -> bool:
    return os.geteuid() == 0 and shutil.which("chroot") is not None


def libraries() -> dict[str, str]:
    """Returns the libraries that the program is linked with: their names and their paths on this machine."""
    lines = subprocess.run(["ldd", PROGRAM], check=True, capture_output=True, text=True).stdout.splitlines()
    named = [re.match(r"\s*(?:(\S+) => )?(/\S+) \(", line) for line in lines]
    return {pathlib.PurePath(m[1] or m[2]).name: m[2] for m in named if m}


def furnish(root: pathlib.Path, target: pathlib.PurePosixPath) -> None:
    """Puts the program and its libraries where they find each other. The user may write nothing there."""
    linked = libraries()
    strange = {name for name in linked if not LOADER.match(name)} - IN_THE_BASE
    if strange:
        raise Fault(f"not in the base image: {', '.join(sorted(strange))}")
    files = [*linked.values(), *filter(os.path.exists, [AUTHORITIES])]
    for source, place in [*((path, path) for path in files), (PROGRAM, target)]:
        there = root / str(place).lstrip("/")
        there.parent.mkdir(parents=True, exist_ok=True)
        if not there.exists():
            bring(pathlib.Path(source).resolve(), there)
    root.chmod(0o755)


def bring(source: pathlib.Path, there: pathlib.Path) -> None:
    """Makes a hard link if possible, else a copy: a debug build is large, and each pod has a root of its own."""
    try:
        os.link(source, there)
    except OSError:
        shutil.copy(source, there)


def inside(root: pathlib.Path, target: pathlib.PurePosixPath, user: str) -> list[str]:
    """Returns the beginning of a command that runs in this root as this user."""
    return [shutil.which("chroot"), f"--userspec={user}", "--groups=", str(root), str(target)]


def secret_file(file: pathlib.Path, content: bytes, user: str) -> None:
    """Writes a secret as Kubernetes mounts it: it belongs to root, and the pod's group may read it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    file.chmod(0o440)
    os.chown(file, 0, int(user.partition(":")[2]))

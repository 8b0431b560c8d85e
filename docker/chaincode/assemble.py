"""Put together the file system of the chaincode image: `assemble.py PACKAGES IMAGE`.

It takes the Python that runs this, without what chaincode never imports (pip, tests, editors, compilers' helpers), the
installed packages, and the shared libraries that either of them links.
"""

from __future__ import annotations

import compileall
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

UID = 10001
LEFT_OUT = {
    # Not for a server without terminal, display, installer or tests.
    "__pycache__", "config-*", "ctypes/macholib", "curses", "dbm", "distutils", "ensurepip", "idlelib", "lib2to3", "msilib",
    "pydoc_data", "site-packages", "sqlite3", "test", "tests", "tkinter", "turtledemo", "venv", "wsgiref", "xmlrpc",
    "antigravity.py", "doctest.py", "pdb.py", "pydoc.py", "this.py", "turtle.py",
    "_bz2*", "_ctypes_test*", "_curses*", "_dbm*", "_gdbm*", "_lzma*", "_sqlite3*", "_test*", "_tkinter*", "_xx*",
    "audioop*", "nis*", "ossaudiodev*", "readline*", "spwd*", "xxlimited*",
}  # fmt: skip
PACKAGES_LEFT_OUT = {"__pycache__", "bin", "tests", "test", "*.c", "*.h", "*.pxd", "*.pyx", "*.pyi", "roots.pem"}


def copy(source: Path, target: Path, left_out: set[str]) -> None:
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(*left_out), symlinks=False)


def linked(binary: Path, search: list[Path]) -> set[Path]:
    """The shared libraries that a program or module is linked with, the loader included."""
    environment = {**os.environ, "LD_LIBRARY_PATH": os.pathsep.join(map(str, search))}
    told = subprocess.run(["ldd", binary], capture_output=True, text=True, env=environment, check=False).stdout
    return {Path(path) for path in re.findall(r"(?:=> )?(/\S+) \(0x", told)}


def assemble(packages: Path, image: Path) -> None:
    executable = Path(sys.executable).resolve()
    library = Path(sysconfig.get_path("stdlib"))
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    own = image / "usr/local/lib" / python
    copy(library, own, LEFT_OUT)
    copy(packages, own / "site-packages", PACKAGES_LEFT_OUT)
    (image / "usr/local/bin").mkdir(parents=True)
    shutil.copy2(executable, image / "usr/local/bin/python3")

    binaries = [executable, *own.rglob("*.so*")]
    for binary in binaries:
        for path in linked(binary, [library.parent]):
            if packages in path.parents or image in path.parents:
                continue
            target = image / str(path).lstrip("/")
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path.resolve(), target)

    # The image is read-only: without these files each start would compile all again.
    compileall.compile_dir(str(own), stripdir=str(image), quiet=2, invalidation_mode=None, workers=2)
    for folder in ("etc", "opt/contracts", "tmp"):
        (image / folder).mkdir(parents=True, exist_ok=True)
    (image / "tmp").chmod(0o1777)
    (image / "etc/passwd").write_text(f"chaincode:x:{UID}:{UID}::/:/nonexistent\n")
    (image / "etc/group").write_text(f"chaincode:x:{UID}:\n")
    (image / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    (image / "etc/ld.so.conf").write_text("/usr/local/lib\n")
    subprocess.run(["ldconfig", "-r", image], check=True)


if __name__ == "__main__":
    assemble(Path(sys.argv[1]), Path(sys.argv[2]))

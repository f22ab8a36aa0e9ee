"""The jars of a Kafka broker: fetched once from Maven Central with ``mvn``, kept in the cache, checked before use."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from demo.servers.cache import cache_folder, made_once, run_tool
from demo.servers.process import DidNotStart

if TYPE_CHECKING:
    from pathlib import Path

VERSION: Final = "4.2.0"
_SCALA: Final = "2.13"
_SLF4J: Final = "1.7.36"  # that of this Kafka; without a binding of it a broker says nothing, not even why it ends
_LIST: Final = "jars.txt"  # what was asked for, and name and size of each jar that came

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


def fetch_kafka() -> Path:
    """The folder of the broker's jars, downloaded if the cache does not hold all of them.

    Raises:
        DidNotStart: the download failed; says how.
    """
    return made_once(cache_folder() / f"kafka-{VERSION}", _is_complete, _download)


def _is_complete(folder: Path) -> bool:
    try:
        return (folder / _LIST).read_text() == _list_jars(folder)
    except OSError:  # not there, or being replaced just now
        return False


def _list_jars(folder: Path) -> str:
    return _POM + "".join(f"{jar.name} {jar.stat().st_size}\n" for jar in sorted(folder.glob("*.jar")))


def _download(fresh: Path) -> None:
    fresh.mkdir()
    (fresh / "pom.xml").write_text(_POM)
    command = ["mvn", "--quiet", "--batch-mode", "dependency:copy-dependencies", "-DoutputDirectory=."]
    run_tool(command, f"Kafka {VERSION}", folder=fresh)
    (fresh / "pom.xml").unlink()
    if not (fresh / f"kafka_{_SCALA}-{VERSION}.jar").exists():
        msg = f"mvn fetched no Kafka {VERSION}, only {[jar.name for jar in fresh.iterdir()]}"
        raise DidNotStart(msg)
    (fresh / _LIST).write_text(_list_jars(fresh))

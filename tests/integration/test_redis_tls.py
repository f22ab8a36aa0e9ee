"""A Redis that speaks TLS, by the certificate of an authority of our own, and one behind a socket: real servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from demo.servers.certificates import Authority
from demo.servers.product import FlowerProcess
from demo.servers.redis_group import RedisNode, missing_for_redis_group
from matyan_celery.checks.finding import Finding
from matyan_celery.checks.redis import look_at_redis
from tasks.app import make_app
from tasks.cleanup import send_cleanup
from tasks.settings import load_settings
from tests.integration.flower_answers import get_page, queue_lengths

missing = missing_for_redis_group()
pytestmark = [pytest.mark.integration, pytest.mark.skipif(missing is not None, reason=str(missing))]

PASSWORD = "p@:/?#% w,;&=ü"
ESCAPED = quote(PASSWORD, safe="")


@contextmanager
def redis_for(folder: Path, authority: Authority, host: str = "127.0.0.1") -> Iterator[RedisNode]:
    certificate, key = authority.sign("theirs", host)
    files = {"tls-cert-file": str(certificate), "tls-key-file": str(key)}
    with RedisNode(folder / host, "redis", files, password="secret", authority=authority) as node:
        yield node


def look(url: str) -> Finding:
    return next(look_at_redis(load_settings(None, redis_url=url)))


def test_the_server_is_verified_unless_that_is_switched_off_by_name(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "ca"), Authority(tmp_path / "other")
    with redis_for(tmp_path, authority) as node:
        url = f"rediss://:secret@127.0.0.1:{node.port}/0"
        assert look(f"{url}?ssl_ca_certs={authority.file}").well
        assert look(f"{url}?ssl_cert_reqs=none").well
        for wrong in (url, f"{url}?ssl_ca_certs={other.file}", f"{url}?ssl_cert_reqs=required"):
            found = look(wrong)
            assert not found.well
            assert "certificate" in found.sentence.lower()
            assert "secret" not in found.sentence
        plain = look(url.replace("rediss", "redis"))
        assert not plain.well
    with redis_for(tmp_path, authority, "redis.example.org") as node:
        url = f"rediss://:secret@127.0.0.1:{node.port}/0?ssl_ca_certs={authority.file}"
        assert "not valid for '127.0.0.1'" in look(url).sentence
        assert look(f"{url}&ssl_check_hostname=false").well


def test_a_file_of_the_url_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    found = look(f"rediss://h?ssl_ca_certs={path}")
    assert not found.well
    assert f"REDIS_URL: ssl_ca_certs={path}: cannot be read (No such file or directory)" in found.sentence


def test_a_socket_and_any_password(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    with RedisNode(tmp_path / "redis", "redis", {"unixsocket": str(path)}) as node:
        with node.client() as client:
            client.config_set("requirepass", PASSWORD)
        assert look(f"unix://:{ESCAPED}@{path}?db=3").well
        assert look(f"redis://:{ESCAPED}@127.0.0.1:{node.port}/3").well
        with make_app(load_settings(None, redis_url=f"unix://:{ESCAPED}@{path}?db=3")) as app:
            assert send_cleanup(app, "run")
        with node.client(password=PASSWORD, db=3) as client:
            assert client.llen("cleanup") == 1


def test_flower_shows_the_queues_of_a_redis_with_an_authority_of_its_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    with redis_for(tmp_path, authority) as node:
        url = f"rediss://:secret@127.0.0.1:{node.port}/0?ssl_ca_certs={authority.file}"
        with make_app(load_settings(None, redis_url=url)) as app:
            assert send_cleanup(app, "run")
        given = {"STORAGE_URL": f"sqlite:///{tmp_path / 'store.db'}", "REDIS_URL": url}
        with FlowerProcess(tmp_path, given) as flower:
            assert queue_lengths(flower)["cleanup"] == 1
            page = get_page(flower, "/broker")
            assert "<td>cleanup</td>" in "".join(page.split())
            assert "secret" not in page

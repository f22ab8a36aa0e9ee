"""Redis URLs: what they say, what is wrong with them in words, and what Celery is told of them."""

from __future__ import annotations

import ssl
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kombu import Connection

from tasks.app import make_app
from tasks.broker import configure_broker, write_kombu_url
from tasks.settings import Settings, WrongSettingError, load_settings
from tasks.settings.redis_url import TLS, Kind, Node, RedisAddress, Verify, read_redis_url

SERVER = RedisAddress(Kind.SERVER, (Node("h", 6379),))
SENTINELS = RedisAddress(Kind.SENTINEL, (Node("a", 26379), Node("b", 26380)), database=2, user="u", password="p")


def settings_of(url: str, **given: Any) -> Settings:
    return load_settings(None, redis_url=url, **given)


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h", SERVER),
        ("redis://h:6379", SERVER),
        ("REDIS://h:6379/0", SERVER),
        ("redis://h/?db=0", SERVER),
        ("redis://h/3", RedisAddress(Kind.SERVER, SERVER.nodes, database=3)),
        ("redis://h?db=3", RedisAddress(Kind.SERVER, SERVER.nodes, database=3)),
        ("redis://:p%2F%23@h", RedisAddress(Kind.SERVER, SERVER.nodes, password="p/#")),
        ("redis://u:p:@:q@h", RedisAddress(Kind.SERVER, SERVER.nodes, user="u", password="p:@:q")),  # clear as it is
        ("redis://u@h", RedisAddress(Kind.SERVER, SERVER.nodes, user="u")),
        ("redis://[::1]:1/0", RedisAddress(Kind.SERVER, (Node("::1", 1),))),
        ("rediss://h", RedisAddress(Kind.SERVER, SERVER.nodes, tls=TLS())),
        ("rediss://h?ssl_cert_reqs=none", RedisAddress(Kind.SERVER, SERVER.nodes, tls=TLS(Verify.NONE))),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", RedisAddress(Kind.SERVER, SERVER.nodes, tls=TLS(Verify.NONE))),
        ("redis://h?ssl_ca_certs=/ca", RedisAddress(Kind.SERVER, SERVER.nodes, tls=TLS(ca_file="/ca"))),
        (
            "rediss://h?ssl_check_hostname=false&ssl_certfile=/c&ssl_keyfile=/k&ssl_password=a%26b&ssl_ca_path=/d",
            RedisAddress(Kind.SERVER, SERVER.nodes, tls=TLS(Verify.REQUIRED, False, "", "/d", "/c", "/k", "a&b")),
        ),
        ("unix:///run/redis.sock", RedisAddress(Kind.SOCKET, path="/run/redis.sock")),
        ("redis+socket:///r.sock?virtual_host=2", RedisAddress(Kind.SOCKET, path="/r.sock", database=2)),
        ("unix://u:p@/r.sock?db=2", RedisAddress(Kind.SOCKET, path="/r.sock", database=2, user="u", password="p")),
        ("sentinel://u:p@a,b:26380/2", SENTINELS),
        ("sentinel://u:p@a:26379;sentinel://b:26380/2", SENTINELS),
        ("sentinel://u:p@a/2;sentinel://u:p@b:26380/2", SENTINELS),
        ("sentinels://a", RedisAddress(Kind.SENTINEL, (Node("a", 26379),), tls=TLS())),
        ("redis://h?credential_provider=m:C", RedisAddress(Kind.SERVER, SERVER.nodes, credential_provider="m:C")),
    ],
)
def test_what_a_url_says(url: str, address: RedisAddress) -> None:
    assert read_redis_url(url) == address


PASSWORD = "in a password write %"
WRONG = {
    "redis:/h": "use a URL that starts with one of redis://, rediss://, unix://",
    "http://h": "use a URL that starts with one of redis://",
    "redis://": "the host is missing",
    "redis:///0": "the host is missing",
    "redis://:hunter2@/0": "the host is missing",
    "redis://:6379/0": "the host is missing",
    "redis://:hunter2": "the host is missing",
    "redis://h:hunter2": "no number from 1 to 65535",
    "redis://h:0": "no number from 1 to 65535",
    "redis://h:65536": "no number from 1 to 65535",
    "redis://::1/0": "the host is missing",
    "redis://fe80::1/0": "no number from 1 to 65535",
    "redis://[fe80::1/0": "its host cannot be read",
    "redis://h/zero": "the database's number",
    "redis://h/0/1": "the database's number",
    "redis://h/0?db=1": "two databases",
    "redis://:hun#ter2@h/0": PASSWORD,
    "redis://:hun%ter2@h/0": PASSWORD,
    "redis://:hun/ter2@h/0": PASSWORD,
    "redis://:hun?ter2@h/0": PASSWORD,
    "redis://:hun ter2@h/0": PASSWORD,
    'redis://:hun"ter2@h/0': PASSWORD,
    "redis://:hunter2@h/0\n": "a blank, a line break or a quote",
    "redis://:%FF@h/0": "not UTF-8",
    "redis://h/0?hunter2": "its parameter is not known: known are db,",
    "redis://h/0?socket_timeout=hunter2": "its parameter socket_timeout is not known",
    "redis://h/0?password=hunter2": "its parameter password is not known",
    "redis://:hun?ter2=x": "the host is missing",
    "redis://h/0?db=": "db has no value",
    "redis://h/0?db=1&db=1": "db is given twice",
    "rediss://h/0?ssl_cert_reqs=maybe": "ssl_cert_reqs is one of required, optional, none",
    "rediss://h/0?ssl_check_hostname=maybe": "ssl_check_hostname is true or false",
    "rediss://h/0?ssl_keyfile=/k": "go with ssl_certfile",
    "unix://run/redis.sock": "three slashes",
    "unix:///": "three slashes",
    "unix:///r.sock?ssl_ca_certs=/ca": "a socket has no TLS",
    "redis://a,b/0": "several hosts are for sentinel:// alone",
    "redis://a;redis://b": "several URLs are for sentinels alone",
    "sentinel://a;redis://b": "several URLs are for sentinels alone",
    "sentinel://a;sentinels://b": "different schemes",
    "sentinel://:hunter2@a;sentinel://:other@b": "different users or passwords",
    "sentinel://a/1;sentinel://b/2": "different databases",
    "sentinel://a?db=1;sentinel://b?db=2": "different parameters",
    "sentinel://:hunter2@a:1,:hunter2@b:2": "stand once, before the first",
    "sentinel://a,,b": "the host is missing",
}


@pytest.mark.parametrize("url", WRONG)
def test_what_is_wrong_is_said_without_the_password(url: str) -> None:
    with pytest.raises(WrongSettingError) as caught:
        settings_of(url, redis_sentinel_master="m")
    said = "".join(traceback.format_exception(caught.value))
    assert str(caught.value).startswith("wrong settings: REDIS_URL='")
    assert WRONG[url] in said
    assert "hun" not in said
    assert "ter2" not in said


@settings(deadline=None)
@given(user=st.text(st.characters(codec="utf-8"), max_size=8), password=st.text(st.characters(codec="utf-8")))
def test_kombu_reads_what_we_write(user: str, password: str) -> None:
    """Whatever the password: escaped for us, and then by us for kombu, it arrives."""
    address = read_redis_url(f"redis://{quote(user, safe='')}:{quote(password, safe='')}@[::1]:6380/3")
    assert (address.user, address.password) == (user, password)
    connection = Connection(write_kombu_url(address))
    assert (connection.userid or "", connection.password or "") == (user, password)
    assert (connection.hostname, connection.port, connection.virtual_host) == ("::1", 6380, "3")
    assert str(address).rpartition("@")[0].endswith("***") or not (user or password)


@settings(deadline=None)
@given(st.text(st.sampled_from("redis+snlu:/@?#%;,[]=& .0a1")))
def test_no_text_is_a_traceback(text: str) -> None:
    for url in (text, f"redis://{text}", f"sentinel://{text}", f"unix:///{text}", f"rediss://h?{text}"):
        try:
            address = read_redis_url(url)
        except ValueError as error:
            assert str(error)  # noqa: PT017 - either is right
        else:
            Connection(write_kombu_url(address))


class TestWhatCeleryIsTold:
    def test_tls_verifies_unless_that_is_switched_off_by_name(self) -> None:
        verified = configure_broker(settings_of("rediss://h"))
        assert verified["broker_use_ssl"] == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True}
        off = configure_broker(settings_of("rediss://h?ssl_cert_reqs=none"))
        assert off["broker_use_ssl"]["ssl_cert_reqs"] == ssl.CERT_NONE
        assert "broker_use_ssl" not in configure_broker(settings_of("redis://h"))

    def test_a_connection_has_it(self) -> None:
        with make_app(settings_of("rediss://u:p%40@h:1/2")) as app, app.connection_for_write() as connection:
            assert (connection.transport_cls, connection.userid, connection.password) == ("rediss", "u", "p@")
            assert connection.ssl["ssl_cert_reqs"] == ssl.CERT_REQUIRED

    def test_a_socket_is_called_as_kombu_calls_it(self) -> None:
        told = configure_broker(settings_of("unix://:p%40@/run/a%20b.sock?db=2"))
        assert told["broker_url"] == "redis+socket://:p%40@/run/a%20b.sock?virtual_host=2"

    def test_each_sentinel_s_url_says_it_all(self) -> None:
        given = {"redis_sentinel_master": "m", "redis_sentinel_password": "own"}
        told = configure_broker(settings_of("sentinels://:p@a,b:1/2?ssl_ca_certs=/ca", **given))
        assert told["broker_url"] == "sentinel://:p@a:26379/2;sentinel://:p@b:1/2"
        assert told["broker_use_ssl"]["ssl_ca_certs"] == "/ca"
        options = told["broker_transport_options"]
        assert options["master_name"] == "m"
        sentinels = options["sentinel_kwargs"]
        assert (sentinels["password"], sentinels["ssl"], sentinels["ssl_ca_certs"]) == ("own", True, "/ca")
        plain = configure_broker(settings_of("sentinels://a", redis_sentinel_master="m", redis_sentinel_tls=False))
        assert plain["broker_transport_options"]["sentinel_kwargs"].keys().isdisjoint({"ssl", "password"})

    @pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_ca_path", "ssl_certfile"])
    def test_a_file_that_is_not_there_is_named(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(WrongSettingError, match=rf"REDIS_URL: {name}=/nowhere: cannot be read \(No such file"):
            make_app(settings_of(f"rediss://:secret@h?{name}=/nowhere"))
        (tmp_path / "there").touch()
        make_app(settings_of(f"rediss://h?{name}={tmp_path / 'there'}")).close()
        make_app(settings_of(f"rediss://h?ssl_ca_path={tmp_path}")).close()


class TestSentinelSettings:
    def test_the_master_s_name_is_needed(self) -> None:
        with pytest.raises(WrongSettingError, match="REDIS_SENTINEL_MASTER is empty: name the master"):
            settings_of("sentinel://a")

    @pytest.mark.parametrize("name", ["master", "username", "password"])
    def test_without_sentinels_they_are_not_wanted(self, name: str) -> None:
        with pytest.raises(WrongSettingError, match=f"REDIS_SENTINEL_{name.upper()} does nothing") as caught:
            settings_of("redis://h", **{f"redis_sentinel_{name}": "secret"})
        assert "secret" not in str(caught.value)

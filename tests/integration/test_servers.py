"""The real servers do what the demo and the other tests lean on."""

from __future__ import annotations

import socket
from pathlib import Path
from uuid import uuid4

import pytest
import redis as redis_client
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicCollection
from confluent_kafka.admin import AdminClient

from demo.servers.kafka import KafkaServer, MockKafka, choose_kafka
from demo.servers.kafka_jars import fetch_kafka, missing_for_kafka
from demo.servers.process import DidNotStart
from demo.servers.redis import RedisServer, find_redis
from tests.conftest import MakeTopic

pytestmark = pytest.mark.integration


def produce(servers: str, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": servers, "enable.idempotence": True})
    for value in values:
        producer.produce(topic, value, b"run", on_delivery=assert_delivered)
    assert producer.flush(30) == 0


def assert_delivered(error: KafkaError | None, _: Message) -> None:
    assert error is None


def consume(servers: str, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": f"reader-{uuid4().hex}", "auto.offset.reset": "earliest"}
    )
    try:
        consumer.subscribe([topic])
        found: list[bytes | None] = []
        while len(found) < count:
            messages = consumer.consume(count - len(found), timeout=30)
            assert messages, f"only {len(found)} of {count} records came"
            assert all(message.error() is None for message in messages)
            found += [message.value() for message in messages]
        return found
    finally:
        consumer.close()


def topic_id(servers: str, topic: str) -> str:
    admin = AdminClient({"bootstrap.servers": servers})
    described = admin.describe_topics(TopicCollection([topic]))
    return str(described[topic].result(timeout=30).topic_id)


class TestKafka:
    def test_keeps_records_and_port_over_kill_and_restart(self, kafka: KafkaServer, topic: str) -> None:
        servers, pid = kafka.bootstrap_servers, kafka.pid
        produce(servers, topic, b"one", b"two")
        first_id = topic_id(servers, topic)
        kafka.kill()
        assert not kafka.is_alive()
        kafka.start()
        assert kafka.pid != pid
        produce(servers, topic, b"three")
        assert consume(servers, topic, 3) == [b"one", b"two", b"three"]
        assert topic_id(servers, topic) == first_id

    def test_makes_and_deletes_topics(self, kafka: KafkaServer, make_topic: MakeTopic) -> None:
        name = make_topic(3, {"retention.ms": "1000000"})
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
        assert sorted(admin.list_topics(timeout=30).topics[name].partitions) == [0, 1, 2]
        before = topic_id(kafka.bootstrap_servers, name)
        with pytest.raises(KafkaException, match="already exists"):
            kafka.create_topic(name, 3)
        kafka.delete_topic(name)
        assert not kafka.has_topic(name)
        kafka.create_topic(name, 1)
        assert topic_id(kafka.bootstrap_servers, name) != before

    def test_makes_no_topic_by_itself(self, kafka: KafkaServer) -> None:
        failures: list[KafkaError | None] = []
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "message.timeout.ms": 2_000})
        producer.produce("never-made", b"x", on_delivery=lambda error, _: failures.append(error))
        producer.flush(30)
        assert len(failures) == 1
        assert failures[0] is not None
        assert not kafka.has_topic("never-made")

    def test_takes_a_record_of_9_mb(self, kafka: KafkaServer, make_topic: MakeTopic) -> None:
        topic = make_topic(1)
        value = b"x" * 9_000_000
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "message.max.bytes": 10_000_000})
        producer.produce(topic, value)
        assert producer.flush(60) == 0
        assert consume(kafka.bootstrap_servers, topic, 1) == [value]

    def test_goes_on_in_its_folder(self, tmp_path: Path) -> None:
        if missing_for_kafka() is not None:
            pytest.skip(f"no real Kafka: {missing_for_kafka()}")
        first = KafkaServer(tmp_path)
        assert first.stop() is None
        with first:
            pid = first.pid
            first.start()
            assert first.pid == pid
            first.create_topic("kept", 2)
        first.stop()
        with KafkaServer(tmp_path) as second:
            assert second.has_topic("kept")

    def test_a_taken_port_is_told(self, tmp_path: Path) -> None:
        if missing_for_kafka() is not None:
            pytest.skip(f"no real Kafka: {missing_for_kafka()}")
        server = KafkaServer(tmp_path)
        with socket.create_server(("127.0.0.1", server.port)):
            with pytest.raises(DidNotStart, match=r"(?s)kafka ended with code 1.*Address already in use"):
                server.start()
            assert not server.is_alive()


class TestKafkaJars:
    def test_a_damaged_cache_is_fetched_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        if missing_for_kafka() is not None:
            pytest.skip(f"no real Kafka: {missing_for_kafka()}")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        folder = fetch_kafka()
        sizes = {jar.name: jar.stat().st_size for jar in folder.glob("*.jar")}
        assert f"kafka_2.13-{folder.name.removeprefix('kafka-')}.jar" in sizes
        stamp = (folder / "jars.txt").stat()
        assert fetch_kafka() == folder
        assert (folder / "jars.txt").stat() == stamp, "a complete cache is used as it is"
        damaged, *_ = folder.glob("kafka-clients-*.jar")
        damaged.write_bytes(damaged.read_bytes()[:1000])
        assert fetch_kafka() == folder
        assert {jar.name: jar.stat().st_size for jar in folder.glob("*.jar")} == sizes

    def test_a_failed_download_is_told_and_leaves_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mvn = tmp_path / "bin" / "mvn"
        mvn.parent.mkdir()
        mvn.write_text("#!/bin/sh\nmkdir lib; echo half > lib/some.jar; echo repository out of reach; exit 1\n")
        mvn.chmod(0o755)
        monkeypatch.setenv("PATH", f"{mvn.parent}:/usr/bin:/bin")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with pytest.raises(DidNotStart, match=r"(?s)mvn could not get Kafka.*repository out of reach"):
            fetch_kafka()
        left = [path.suffix for path in (tmp_path / "cache" / "matyan-celery").iterdir()]
        assert left == [".lock"]
        java = mvn.with_name("java")
        java.symlink_to(mvn)
        kafka, words = choose_kafka(tmp_path)
        kafka.stop()
        assert isinstance(kafka, MockKafka)
        assert words.startswith("librdkafka's mock cluster (mvn could not get Kafka")

    def test_missing_programs_are_named_and_the_mock_chosen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert missing_for_kafka() == "java and mvn not found"
        kafka, words = choose_kafka(tmp_path)
        try:
            assert isinstance(kafka, MockKafka)
            assert kafka.fixed_partitions == 4
            assert words == "librdkafka's mock cluster (java and mvn not found)"
        finally:
            kafka.stop()


class TestMockKafka:
    def test_carries_records_between_clients(self) -> None:
        kafka = MockKafka()
        try:
            kafka.start()
            kafka.create_topic("data")
            admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
            assert len(admin.list_topics(timeout=30).topics["data"].partitions) == 4
            produce(kafka.bootstrap_servers, "data", b"one", b"two")
            assert consume(kafka.bootstrap_servers, "data", 2) == [b"one", b"two"]
        finally:
            kafka.stop()

    def test_refuses_what_it_cannot_do(self) -> None:
        kafka = MockKafka()
        with pytest.raises(ValueError, match="6 partitions: the mock cluster gives every topic 4"):
            kafka.create_topic("data", 6)
        kafka.stop()
        kafka.stop()
        with pytest.raises(RuntimeError, match="the mock cluster was stopped"):
            kafka.create_topic("data")


@pytest.mark.broker
class TestRedis:
    def test_is_empty_at_the_same_port_after_a_restart(self, redis: RedisServer) -> None:
        url = redis.url
        for end in (redis.kill, redis.stop):
            with redis_client.Redis.from_url(url) as client:
                client.lpush("list", "x")
            end()
            end()
            assert not redis.is_alive()
            redis.start()
            with redis_client.Redis.from_url(url) as client:
                assert client.keys() == []

    def test_flush_loses_everything(self, redis: RedisServer) -> None:
        with redis_client.Redis.from_url(redis.url) as client:
            client.set("a", "b")
            redis.flush()
            assert client.keys() == []

    def test_a_taken_port_is_told(self, redis: RedisServer, tmp_path: Path) -> None:
        second = RedisServer(tmp_path, redis.port)
        with pytest.raises(DidNotStart, match=r"(?s)redis ended with code 1.*Address already in use"):
            second.start()

    def test_is_found_in_a_wheel_where_the_path_has_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        try:
            program = find_redis()
        except DidNotStart as error:
            pytest.skip(str(error))
        with RedisServer(tmp_path) as server:
            assert Path(f"/proc/{server.pid}/exe").resolve() == program.resolve()

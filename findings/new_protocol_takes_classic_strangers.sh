#!/usr/bin/env bash
# Kafka 4.2 takes a classic member with another way of sharing partitions out (aiokafka's round robin) into a group of the
# new protocol (group.protocol=consumer) and gives it half of the partitions, with no error to anybody. Into a group of
# classic cooperative-sticky members the same client is not let: InconsistentGroupProtocolError. A good guess is that the
# protocols keep each other out; since group.consumer.migration.policy is `bidirectional` by default, the new one does not.
#
# Needs java, mvn and python3 with venv. Exits non-zero where it behaves otherwise.
set -euo pipefail
work=$(mktemp -d)
broker=
trap '[ -z "$broker" ] || kill "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"

python3 -m venv venv
venv/bin/python -m pip install --quiet --disable-pip-version-check confluent-kafka==2.16.1 aiokafka==0.14.0
cat >pom.xml <<'POM'
<project xmlns="http://maven.apache.org/POM/4.0.0">
<modelVersion>4.0.0</modelVersion><groupId>f</groupId><artifactId>f</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.2.0</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency></dependencies></project>
POM
mvn --quiet --batch-mode dependency:copy-dependencies -DoutputDirectory=jars

read -r port control < <(python3 -c '
import socket
taken = [socket.socket() for _ in range(2)]
for one in taken: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in taken))')
cat >server.properties <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$control
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$control
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$work/data
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
PROPERTIES
java -cp 'jars/*' kafka.tools.StorageTool format --cluster-id=MkU3OEVBNTcwNTJENDM2Qg --config server.properties >/dev/null 2>&1
java -Xmx512m -Dorg.slf4j.simpleLogger.defaultLogLevel=error -cp 'jars/*' kafka.Kafka server.properties >broker.log 2>&1 &
broker=$!

cat >play.py <<'PLAY'
import asyncio, sys, threading, time

import aiokafka, confluent_kafka
from aiokafka.errors import InconsistentGroupProtocolError
from confluent_kafka import Consumer, ConsumerGroupType
from confluent_kafka.admin import AdminClient, NewTopic

servers = sys.argv[1]
admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
print(f"Kafka 4.2.0, confluent-kafka {confluent_kafka.__version__}, aiokafka {aiokafka.__version__}")
deadline = time.monotonic() + 120
while True:
    try:
        admin.list_topics(timeout=5)
        break
    except confluent_kafka.KafkaException:
        assert time.monotonic() < deadline, "the broker does not come up"


async def stranger(topic, group):
    """What an aiokafka consumer with its defaults is given, or why it is refused."""
    consumer = aiokafka.AIOKafkaConsumer(topic, bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    try:
        await consumer.start()
        for _ in range(60):
            await consumer.getmany(timeout_ms=500)
            if consumer.assignment():
                return len(consumer.assignment())
        return 0
    except InconsistentGroupProtocolError as error:
        return type(error).__name__
    finally:
        await consumer.stop()


def play(name, config):
    topic = group = "group-" + name.partition("=")[0]
    admin.create_topics([NewTopic(topic, 6, 1)])[topic].result(60)
    first = Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False, **config})
    ended, mine = threading.Event(), []
    first.subscribe([topic])

    def poll():
        while not ended.is_set():
            first.poll(0.2)
            mine.append(len(first.assignment()))
        first.close()

    thread = threading.Thread(target=poll)
    thread.start()
    while 6 not in mine:
        assert time.monotonic() < deadline + 120, "no assignment"
        time.sleep(0.2)
    got = asyncio.run(stranger(topic, group))
    kind = admin.describe_consumer_groups([group])[group].result(30).type
    ended.set()
    thread.join()
    print(f"{name}: librdkafka's member held 6, then at least {min(mine[mine.index(6):])}; aiokafka got {got}; group {kind.name}")
    return got, kind


classic = play("cooperative-sticky", {"partition.assignment.strategy": "cooperative-sticky"})
new = play("group.protocol=consumer", {"group.protocol": "consumer"})
as_found = classic == ("InconsistentGroupProtocolError", ConsumerGroupType.CLASSIC) and new[0] == 3
print("as found" if as_found else "BEHAVES OTHERWISE NOW")
sys.exit(not as_found)
PLAY
timeout 300 venv/bin/python play.py "127.0.0.1:$port"

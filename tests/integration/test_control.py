"""The control path on real Kafka, Redis, workers and S3: the blobs of deleted runs go, and of no others."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from demo.servers.kafka import KafkaServer
from demo.servers.process import wait_until
from demo.servers.redis import RedisServer
from demo.servers.s3 import VersityServer
from storage.cleanup import CleanupState
from storage.store import open_store
from tasks.queues import control_queue
from tests.conftest import Programs
from tests.integration.control_traffic import Control, new_run
from tests.integration.traffic import wait_applied

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

QUICK = {"STALL_SECONDS": "1", "STORAGE_TIMEOUT_SECONDS": "5", "CLEANUP_BACKOFF_SECONDS": "0.3"}
DONE, FAILED, HELD, PENDING = (
    CleanupState.DONE,
    CleanupState.FAILED,
    CleanupState.HELD,
    CleanupState.PENDING,
)


@pytest.fixture
def control(settings: dict[str, str], s3: VersityServer, tmp_path: Path) -> Control:
    settings.update(QUICK)
    return Control(settings, s3, tmp_path)


def test_deleted_runs_lose_their_blobs_and_living_ones_do_not(control: Control, programs: Programs) -> None:
    bridge, worker = programs.bridge(), programs.worker(concurrency=2)
    deleted, twice, living, early, forced = (new_run() for _ in range(5))
    keys = {run: control.put(run) for run in (deleted, twice, living, early, forced)}
    near = f"{deleted}0"
    keys[near] = control.put(near)
    bridge.start()
    worker.start()

    control.ingest("create_run", deleted, client_datetime=None, force_resume=False)
    control.ingest("delete_run", deleted)
    entry = control.wait(deleted, DONE)
    assert (entry.source, entry.objects, entry.bytes) == ("event", 3, 12)
    wait_until(lambda: control.waiting_events() == 0, "the outbox is empty", seconds=30)

    control.event("run_deleted", run_id=twice)  # a run that was never known
    control.event("run_deleted", run_id=twice)
    assert control.wait(twice, DONE, since=2).objects == 3

    for run in (living, forced, early):
        control.ingest("create_run", run, client_datetime=None, force_resume=False)
    wait_applied(
        control.settings["KAFKA_BOOTSTRAP_SERVERS"],
        control.settings["INGEST_GROUP"],
        control.settings["KAFKA_DATA_INGESTION_TOPIC"],
        seconds=60,
    )
    for run in (living, forced, early):
        control.event("run_deleted", run_id=run)
    for run in (living, forced, early):
        assert "the run lives" in control.wait(run, HELD).error
    control.ingest("delete_run", early)  # the event came first
    control.wait(early, DONE)
    control.requeue(forced, force=True)
    assert not control.wait(forced, DONE).forced

    left = {run: control.left(run) for run in keys}
    assert left == {run: keys[run] if run in {living, near} else [] for run in keys}
    assert control.count() == 5, "one cleanup a run, however many events"

    control.put(deleted, 1)  # a late upload
    control.event("run_deleted", run_id=deleted)
    assert control.wait(deleted, DONE, since=2).objects == 4
    assert control.left(deleted) == []

    control.event("run_archived", run_id=living, archived=True)
    control.event("nonsense")
    control.event("run_deleted")
    control.event("run_deleted", run_id="../" + living)
    control.event("tag_deleted", tag_id="7e6f2a52-3f3d-4b3c-8a55-111111111111")
    control.event("run_deleted", run_id=new_run(), blob_keys=[f"{living}/seq/images/000000.png"])
    with open_store(control.settings["STORAGE_URL"]) as store:
        wait_until(
            lambda: (
                [letter.reason for letter in store.dead_letters.each(store.engine)]
                == ["unknown_type", "invalid", "unsafe_name"]
            ),
            "three bad events are dead letters",
            seconds=60,
        )
        wait_until(
            lambda: [str(entry.state) for entry in store.cascades.each(store.engine)] == ["done"],
            "the cascade is done",
            seconds=60,
        )
        wait_until(
            lambda: store.cleanups.count(store.engine)[HELD] == 2, "somebody else's key is not deleted", seconds=60
        )
    assert control.left(living) == keys[living]
    report = control.command("status", "--json").stdout
    assert control.settings["KAFKA_CONTROL_EVENTS_TOPIC"] in report
    bridge.signal(15)
    assert bridge.wait(60) == 0
    drained = control.command("drain")
    assert drained.returncode == 0, drained.stderr
    assert drained.stderr.count("drained: the stock workers can go on") == 2


def test_what_s3_refuses_fails_with_the_keys_name_and_is_done_when_requeued(
    control: Control, programs: Programs, s3: VersityServer
) -> None:
    """Some keys under a legal hold; then a bucket that is not there; then an S3 that is away."""
    control.settings.update(S3_DELETE_VERSIONS="true", CLEANUP_TRIES="2")
    locked, bucket = new_run(), f"{control.bucket}-locked"
    control.settings["S3_BUCKET"] = bucket
    s3.client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    keys = [f"{locked}/{number:04}" for number in range(30)]
    s3.put(keys, bucket=bucket)
    for key in (keys[7], keys[20]):
        s3.client.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={"Status": "ON"})
    bridge, worker = programs.bridge(), programs.worker()
    bridge.start()
    worker.start()
    control.event("run_deleted", run_id=locked)
    entry = control.wait(locked, FAILED)
    assert entry.error.startswith("AccessDenied: ")
    assert f"key '{keys[20]}'" in entry.error
    assert "and 1 others" in entry.error
    assert (entry.attempts, entry.objects) == (2, 28)
    assert s3.keys(f"{locked}/", bucket) == [keys[7], keys[20]]
    for key in (keys[7], keys[20]):
        s3.client.put_object_legal_hold(Bucket=bucket, Key=key, LegalHold={"Status": "OFF"})
    control.requeue(locked)
    assert control.wait(locked, DONE).objects == 30
    versions = s3.client.list_object_versions(Bucket=bucket, Prefix=f"{locked}/")
    assert not versions.get("Versions")
    assert not versions.get("DeleteMarkers")


def test_a_bucket_that_is_not_there(control: Control, programs: Programs, s3: VersityServer) -> None:
    control.settings.update(CLEANUP_TRIES="2", S3_BUCKET=f"{control.bucket}-later")
    run = new_run()
    bridge, worker = programs.bridge(), programs.worker()
    bridge.start()
    worker.start()
    control.event("run_deleted", run_id=run)
    assert control.wait(run, FAILED).error.startswith(f"NoSuchBucket: there is no bucket '{control.bucket}-later'")
    s3.make_bucket(f"{control.bucket}-later")
    control.requeue(run)
    control.wait(run, DONE)


def test_s3_away_for_a_minute_is_tried_again_and_ingestion_does_not_notice(
    control: Control, programs: Programs, s3: VersityServer, kafka: KafkaServer
) -> None:
    """With the default number of tries."""
    run, other = new_run(), new_run()
    control.put(run)
    bridge, worker = programs.bridge(), programs.worker(concurrency=2)
    bridge.start()
    worker.start()
    s3.kill()
    gone = time.monotonic()
    control.ingest("delete_run", run)
    wait_until(
        lambda: (entry := control.cleanup(run)) is not None and entry.attempts >= 2 and "Connect" in entry.error,
        "two tries have failed",
        seconds=120,
        pause=0.3,
    )
    control.ingest("create_run", other)
    wait_applied(
        kafka.bootstrap_servers,
        control.settings["INGEST_GROUP"],
        control.settings["KAFKA_DATA_INGESTION_TOPIC"],
        seconds=60,
    )
    wait_until(lambda: time.monotonic() - gone > 60, "S3 has been away for a minute", seconds=70, pause=1.0)
    tried = control.cleanup(run)
    assert tried is not None
    assert (tried.state in {PENDING, CleanupState.RUNNING}, tried.attempts > 3) == (True, True), tried
    s3.start()
    entry = control.wait(run, DONE, seconds=180)
    print(f"{tried.attempts} tries failed in a minute; done {time.monotonic() - gone:.0f} s after S3 went")
    assert (entry.objects, entry.error, control.left(run)) == (3, "", [])


def test_kafka_without_a_control_topic(
    control: Control, programs: Programs, kafka: KafkaServer, redis: RedisServer
) -> None:
    """Ingestion goes on, the event waits in the outbox; when the topic is made, it goes on its way. Redis forgets."""
    topic = f"{control.settings['KAFKA_CONTROL_EVENTS_TOPIC']}-later"
    control.settings.update(KAFKA_CONTROL_EVENTS_TOPIC=topic, CLEANUP_STALL_SECONDS="0.1")
    run = new_run()
    control.put(run)
    bridge, worker = programs.bridge(), programs.worker(concurrency=2)
    bridge.start()
    worker.start()
    bridge.wait_output("waiting for the topic: it does not exist", 60)
    assert topic in bridge.output()
    control.ingest("delete_run", run)
    wait_applied(
        kafka.bootstrap_servers,
        control.settings["INGEST_GROUP"],
        control.settings["KAFKA_DATA_INGESTION_TOPIC"],
        seconds=60,
    )
    worker.wait_output("events are left in the outbox", 60)
    assert control.waiting_events() == 1
    assert bridge.is_alive()
    drained = control.command("status")
    assert f"Kafka has no topic '{topic}'" in drained.stdout

    worker.kill()  # so that the cleanup's task waits in Redis, and is lost there
    kafka.create_topic(topic, 1)
    bridge.wait_output('"event": "partition taken over"', 60)
    wait_until(
        lambda: control.command("jobs", "run", "outbox").returncode == 0 and control.waiting_events() == 0,
        "the outbox is empty",
        seconds=120,
        pause=2,
    )
    queues = [control_queue(lane, 4) for lane in range(4)]
    ingest = programs.worker("control-only", queues=queues)
    ingest.start()
    control.wait(run, PENDING)
    ingest.stop()
    redis.flush()
    worker.start()
    assert control.command("jobs", "run", "stalled-cleanups").returncode == 0
    control.wait(run, DONE)
    assert control.left(run) == []


@pytest.mark.timeout(1200)
def test_killed_ten_times_in_the_middle_of_25000_objects(control: Control, programs: Programs) -> None:
    control.settings.update(CLEANUP_SLICE_SECONDS="1", CLEANUP_TRIES="40", CLEANUP_REQUESTS="1")
    run = new_run()
    near = [f"{run}x", run[:-1], new_run()]
    for name in near:
        control.put(name, 50)
    control.put(run, 25_000)
    folder = control.s3.data / control.bucket / run / "seq" / "images"
    worker = programs.worker(concurrency=1)
    with open_store(control.settings["STORAGE_URL"]) as store:
        store.engine.transact(lambda transaction: store.cleanups.ask(transaction, run, source="event", now=0.0))

    def count() -> int:
        return sum(1 for _ in folder.iterdir()) if folder.exists() else 0

    def is_free() -> bool:
        """Whether nobody works on it, or whoever did is taken for dead."""
        entry = control.cleanup(run)
        return entry is not None and entry.is_open and entry.due <= time.time()

    left = count()
    assert left == 25_000
    for kills in range(10):
        wait_until(is_free, "the lease of the killed worker is over", seconds=60, pause=0.2)
        worker.start()
        control.send_task(run)
        wait_until(lambda: count() < left - 300, "some more are gone", seconds=60, pause=0.005)  # noqa: B023
        worker.kill()
        left = count()
        assert left, f"it was over at kill {kills}: more objects are needed"
    wait_until(is_free, "the lease of the killed worker is over", seconds=60, pause=0.2)
    worker.start()
    control.send_task(run)
    entry = control.wait(run, DONE, seconds=300)
    assert control.left(run) == []
    assert all(len(control.left(name)) == 50 for name in near)
    assert 0 < entry.objects <= 25_000, "what a killed worker had deleted since its last note is not counted"

"""Settings: names, layers, files, production, and what is never shown."""

from __future__ import annotations

import json
import traceback
from pathlib import Path

import pytest
from click.testing import CliRunner

from matyan_celery.__main__ import cli
from storage.masking import mask_url
from tasks.settings import Settings, WrongSettingError, load_settings, setting_names
from tasks.settings.blobs import DEVELOPMENT_BLOB_URI_SECRET

GOOD_PRODUCTION = {
    "MATYAN_ENVIRONMENT": "production",
    "BLOB_URI_SECRET": "another",
    "S3_ACCESS_KEY": "us",
    "S3_SECRET_KEY": "proof",
    "S3_ENDPOINT": "https://s3.example.org",
}


@pytest.fixture(autouse=True)
def _nothing_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in setting_names(Settings):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def give(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(name, value)


class TestBlobs:
    def test_versions_are_asked_of_the_chosen_store(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, BLOB_BACKEND_TYPE="gcs", GCS_DELETE_VERSIONS="true")
        assert load_settings().gcs_delete_versions
        give(monkeypatch, BLOB_BACKEND_TYPE="azure")
        with pytest.raises(WrongSettingError, match="GCS_DELETE_VERSIONS does nothing with BLOB_BACKEND_TYPE=azure"):
            load_settings()
        with pytest.raises(WrongSettingError, match=r"S3_DELETE_VERSIONS .*=gcs: .*; set GCS_DELETE_VERSIONS"):
            load_settings(blob_backend_type="gcs", s3_delete_versions=True)


class TestLayers:
    def test_the_environment_wins_over_the_file_and_names_have_no_case(self, monkeypatch: pytest.MonkeyPatch) -> None:
        Path(".env").write_text("\ufeffingest_LANES=5\nS3_Bucket='from file'\n", encoding="utf-8")
        give(monkeypatch, Ingest_Lanes="3")
        settings = load_settings()
        assert (settings.ingest_lanes, settings.s3_bucket) == (3, "from file")
        assert load_settings(ingest_lanes=2).ingest_lanes == 2

    def test_stock_names_of_the_batch_have_their_meaning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, INGEST_BATCH_SIZE="200", INGEST_BATCH_TIMEOUT_MS="100")
        settings = load_settings()
        assert (settings.batch_records, settings.linger_ms) == (200, 100)

    def test_two_names_of_one_setting_must_not_differ(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, INGEST_BATCH_SIZE="200", BATCH_RECORDS="200")
        assert load_settings().batch_records == 200
        give(monkeypatch, BATCH_RECORDS="300")
        with pytest.raises(WrongSettingError, match="BATCH_RECORDS and INGEST_BATCH_SIZE are two names of one"):
            load_settings()

    def test_matyan_environment_wins_over_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, ENVIRONMENT="staging")
        assert load_settings().matyan_environment == "staging"
        give(monkeypatch, MATYAN_ENVIRONMENT="development")
        assert load_settings().matyan_environment == "development"

    def test_empty_means_empty_for_text_and_nothing_for_the_rest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, S3_ENDPOINT="", INGEST_LANES="")
        settings = load_settings()
        assert (settings.s3_endpoint, settings.ingest_lanes) == ("", 8)

    def test_every_wrong_setting_is_named_by_the_name_that_was_given(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, INGEST_BATCH_SIZE="many", REDIS_URL="http://me:hunter2@host")
        with pytest.raises(WrongSettingError) as caught:
            load_settings()
        assert "INGEST_BATCH_SIZE='many'" in str(caught.value)
        assert "REDIS_URL='http://me:***@host': use a URL that starts with" in str(caught.value)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


class TestSecrets:
    def test_stand_in_files(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("from a file\n")
        give(monkeypatch, S3_SECRET_KEY_FILE=str(tmp_path / "key"))
        assert load_settings().s3_secret_key == "from a file"
        give(monkeypatch, S3_SECRET_KEY="other")
        with pytest.raises(WrongSettingError, match="S3_SECRET_KEY and S3_SECRET_KEY_FILE are both given"):
            load_settings()

    def test_a_file_that_is_not_there_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, REDIS_URL_FILE="/nowhere/url")
        with pytest.raises(WrongSettingError, match=r"REDIS_URL_FILE='/nowhere/url'.*No such file"):
            load_settings()

    def test_what_is_no_secret_comes_from_no_file(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, S3_BUCKET_FILE="/nowhere/bucket")
        assert load_settings().s3_bucket == "matyan-artifacts"

    def test_a_password_that_is_not_escaped_is_told_and_not_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such a URL reads as host, port and path; whoever connects would say a part of the password."""
        give(monkeypatch, REDIS_URL="redis://:hun/ter2@redis:6379/0")
        with pytest.raises(
            WrongSettingError, match=r"REDIS_URL='redis://:\*\*\*@redis:6379/0': .* in a password write"
        ) as caught:
            load_settings()
        assert "hun" not in "".join(traceback.format_exception(caught.value))
        give(monkeypatch, REDIS_URL="redis://:hun%2Fter2@redis:6379/0")
        assert load_settings().redis_url == "redis://:hun%2Fter2@redis:6379/0"

    def test_are_not_in_the_repr(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(
            monkeypatch,
            S3_SECRET_KEY="hunter2",
            REDIS_URL="rediss://u:hunter2@h/0?ssl_certfile=/c&ssl_password=hunter2",
            AZURE_CONN_STR="hunter2",
            KAFKA_CONFIG='{"sasl.oauthbearer.client.secret": "hunter2"}',
        )
        settings = load_settings()
        assert settings.kafka_client()["sasl.oauthbearer.client.secret"] == "hunter2"
        assert "hunter2" not in repr(settings)
        assert "hunter2" not in str(settings)
        assert "rediss://u:***@h/0" in repr(settings)

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("redis://localhost:6379/0", "redis://localhost:6379/0"),
            ("redis://:pw@h/0", "redis://:***@h/0"),
            ("redis://u:p@s/w@h/0", "redis://u:***@h/0"),
            ("redis://token@h/0", "redis://***@h/0"),
            ("sentinel://:pw@a:1;sentinel://:pw@b:2", "sentinel://:***@a:1;sentinel://:***@b:2"),
            (
                "rediss://h/0?ssl_cert_reqs=required&ssl_password=x",
                "rediss://h/0?ssl_cert_reqs=required&ssl_password=***",
            ),
            ("sqlite:///a@b.db", "sqlite:///a@b.db"),
            ("http://localhost:9000/a:b@c", "http://localhost:***@c"),  # rather too little than too much
        ],
    )
    def test_passwords_in_urls_are_masked(self, url: str, shown: str) -> None:
        assert mask_url(url) == shown


class TestStore:
    def test_is_embedded_where_nothing_is_given(self) -> None:
        assert load_settings().storage_url == "sqlite:///matyan.db"

    def test_is_the_cluster_whose_file_is_there(self, tmp_path: Path) -> None:
        (tmp_path / "fdb.cluster").write_text("a:b@127.0.0.1:4500\n")
        assert load_settings().storage_url == f"fdb://{tmp_path / 'fdb.cluster'}"
        assert load_settings(storage_url="sqlite:///x.db").storage_url == "sqlite:///x.db"

    def test_a_cluster_file_that_was_named_is_not_passed_over_silently(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, FDB_CLUSTER_FILE="/mnt/not-mounted/fdb.cluster")
        assert load_settings().storage_url == "fdb:///mnt/not-mounted/fdb.cluster"

    def test_an_empty_name_means_none(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "fdb.cluster").write_text("a:b@127.0.0.1:4500\n")
        give(monkeypatch, FDB_CLUSTER_FILE="")
        assert load_settings().storage_url == "sqlite:///matyan.db"


class TestProduction:
    def test_takes_what_is_set(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        give(monkeypatch, **GOOD_PRODUCTION)
        assert load_settings().storage_url == f"fdb://{tmp_path / 'fdb.cluster'}"  # never embedded by chance

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("BLOB_URI_SECRET", DEVELOPMENT_BLOB_URI_SECRET),
            ("BLOB_URI_SECRET", " "),
            ("S3_ACCESS_KEY", "rustfsadmin"),
            ("S3_SECRET_KEY", "rustfsadmin"),
            ("S3_ENDPOINT", "http://localhost:9000"),
            ("FDB_CLUSTER_FILE", ""),
        ],
    )
    def test_refuses_development_defaults(self, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
        give(monkeypatch, **{**GOOD_PRODUCTION, name: value})
        with pytest.raises(WrongSettingError, match=name):
            load_settings()
        give(monkeypatch, MATYAN_ENVIRONMENT="development")
        load_settings()

    def test_no_keys_are_the_clouds_own_identity(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, **{**GOOD_PRODUCTION, "S3_ACCESS_KEY": "", "S3_SECRET_KEY": ""})
        settings = load_settings()
        assert (settings.s3_access_key, settings.s3_secret_key) == ("", "")

    def test_the_blob_store_decides_what_else_is_needed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, **{**GOOD_PRODUCTION, "S3_ENDPOINT": "http://localhost:9000", "BLOB_BACKEND_TYPE": "gcs"})
        load_settings()
        with pytest.raises(WrongSettingError, match="GCS_BUCKET"):
            load_settings(gcs_bucket="")
        with pytest.raises(WrongSettingError, match="S3_ACCESS_KEY"):  # like the stock workers
            load_settings(s3_access_key="rustfsadmin")
        with pytest.raises(WrongSettingError, match="AZURE_CONN_STR and AZURE_ACCOUNT_URL"):
            load_settings(blob_backend_type="azure")
        with pytest.raises(WrongSettingError, match="AZURE_CONTAINER"):
            load_settings(blob_backend_type="azure", azure_account_url="https://a", azure_container="")
        load_settings(blob_backend_type="azure", azure_conn_str="AccountKey=x")


class TestKafka:
    def test_security_passes_through(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(
            monkeypatch,
            KAFKA_SECURITY_PROTOCOL="SASL_SSL",
            KAFKA_SASL_MECHANISM="SCRAM-SHA-512",
            KAFKA_SASL_USERNAME="us",
            KAFKA_SASL_PASSWORD="proof",
            KAFKA_SSL_CA_LOCATION="/etc/ca.pem",
        )
        assert load_settings().kafka_client() == {
            "bootstrap.servers": "localhost:9092",
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "us",
            "sasl.password": "proof",
            "ssl.ca.location": "/etc/ca.pem",
        }

    def test_a_user_without_password_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, KAFKA_SASL_USERNAME="us")
        with pytest.raises(WrongSettingError, match="KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD belong together"):
            load_settings()


class TestConfigCommand:
    def test_says_where_each_came_from_and_hides_secrets(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "key").write_text("hunter2\n")
        Path(".env").write_text("S3_BUCKET=blobs\nREDIS_URL=redis://:hunter2@redis:6379/1\n")
        give(monkeypatch, INGEST_BATCH_SIZE="200", S3_SECRET_KEY_FILE=str(tmp_path / "key"), S3_ENDPOINT="")
        done = CliRunner().invoke(cli, ["config", "--format", "json"])
        assert done.exit_code == 0, done.output
        rows = json.loads(done.output)
        assert rows["S3_BUCKET"] == {"value": "blobs", "from": ".env"}
        assert rows["BATCH_RECORDS"] == {"value": 200, "from": "environment (INGEST_BATCH_SIZE)"}
        assert rows["S3_SECRET_KEY"] == {"value": "***", "from": f"file {tmp_path / 'key'} (S3_SECRET_KEY_FILE)"}
        assert rows["REDIS_URL"] == {"value": "redis://:***@redis:6379/1", "from": ".env"}
        assert rows["INGEST_LANES"] == {"value": 8, "from": "default"}
        text = CliRunner().invoke(cli, ["config", "--given"]).output
        assert [line.split()[:2] for line in text.splitlines()] == [
            ["REDIS_URL", "redis://:***@redis:6379/1"],
            ["BATCH_RECORDS", "200"],
            ["S3_ENDPOINT", "(empty)"],
            ["S3_SECRET_KEY", "***"],
            ["S3_BUCKET", "blobs"],
        ]
        assert "hunter2" not in done.output + text

    def test_a_wrong_setting_is_told_in_a_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        give(monkeypatch, METRICS_PORT="70000")
        done = CliRunner().invoke(cli, ["config"])
        assert done.exit_code == 2
        assert "METRICS_PORT='70000'" in done.output
        assert "Traceback" not in done.output

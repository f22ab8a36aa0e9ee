"""The chart: linted, rendered, held to goldens, to schemas and to what it promises. No cluster runs here."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tasks.celeryconfig import cleanup_limit
from tasks.settings import Settings, load_settings
from tests.deploy.chart import LEAST, SETS, Object, golden_of, read_objects, render, run_helm
from tests.deploy.test_compose import read_compose
from tests.deploy.tools import CHART, KUBECONFORM, ROOT, copy_schemas, find_go_program, find_model_checker
from tests.deploy.values import read_values, render_table, replace_table

pytestmark = pytest.mark.timeout(1800)  # tools may have to be built first

NAMES = [values.stem for values in SETS]
CUSTOM = ("ServiceMonitor", "PrometheusRule", "ScaledObject", "TriggerAuthentication")
ALL_ON = (
    "metrics.serviceMonitor.enabled=true",
    "metrics.prometheusRule.enabled=true",
    "metrics.dashboard.enabled=true",
    "networkPolicy.enabled=true",
    "flower.enabled=true",
    "flower.basicAuth=user:password",
)
FULL = "release-matyan-celery"


@pytest.fixture(scope="module", params=SETS, ids=NAMES)
def objects(request: pytest.FixtureRequest) -> dict[tuple[str, str], Object]:
    return read_objects(render(request.param))


@pytest.fixture(scope="module")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> str:
    return copy_schemas(tmp_path_factory.mktemp("schemas"))


def list_pods(objects: dict[tuple[str, str], Object]) -> dict[str, Object]:
    """The pods' specs by role."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]["spec"]
        for (kind, _), one in objects.items()
        if kind == "Deployment"
    }


def list_settings(objects: dict[tuple[str, str], Object]) -> dict[str, str]:
    """The data of the ConfigMap that all roles read."""
    (found,) = [one["data"] for (kind, _), one in objects.items() if kind == "ConfigMap" and "LOG_LEVEL" in one["data"]]
    return dict(found)


class TestRendering:
    @pytest.mark.parametrize("values", SETS, ids=NAMES)
    def test_helm_lints_it(self, values: Path) -> None:
        done = run_helm("lint", "--strict", CHART, "--values", values)
        assert done.returncode == 0, done.stdout + done.stderr

    @pytest.mark.parametrize("values", SETS, ids=NAMES)
    def test_it_is_as_it_was(self, values: Path) -> None:
        """After a change that is meant: python -m tests.deploy.chart, and read the difference."""
        assert render(values) == golden_of(values).read_text()

    @pytest.mark.parametrize("values", SETS, ids=NAMES)
    def test_the_values_of_kubernetes_are_of_its_schemas(self, values: Path, schemas: str, tmp_path: Path) -> None:
        rendered = tmp_path / "rendered.yaml"
        rendered.write_text(render(values, *(ALL_ON if values == LEAST else ())))
        command = [
            str(find_go_program(KUBECONFORM)),
            "-strict",
            "-output",
            "json",
            "-summary",
            "-schema-location",
            schemas,
        ]
        done = subprocess.run(
            [*command, "-skip", ",".join(CUSTOM), rendered], capture_output=True, text=True, check=False
        )
        said = json.loads(done.stdout)
        assert said.get("resources") in (None, []), said["resources"]
        assert done.returncode == 0
        assert said["summary"]["valid"] >= 6

    def test_a_wrong_object_would_be_found(self, schemas: str, tmp_path: Path) -> None:
        rendered = tmp_path / "rendered.yaml"
        rendered.write_text(render(LEAST).replace("terminationGracePeriodSeconds", "terminationGraceSeconds"))
        command = [str(find_go_program(KUBECONFORM)), "-strict", "-schema-location", schemas, str(rendered)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "terminationGraceSeconds" in done.stdout

    def test_custom_resources_are_of_their_models(self) -> None:
        rendered = [
            *ALL_ON,
            "keda.enabled=true",
            "keda.worker.prometheusAddress=http://p",
            "kafkaClient.saslUsername=u",
        ]
        objects = read_objects(render(LEAST, *rendered, "kafkaClient.saslMechanism=PLAIN"))
        custom = [one for (kind, _), one in objects.items() if kind in CUSTOM]
        assert {one["kind"] for one in custom} == set(CUSTOM)
        assert check_models(custom) == ""
        custom[0]["spec"] = "wrong"
        assert "must be object" in check_models(custom)

    @pytest.mark.parametrize("values", SETS, ids=NAMES)
    def test_notes(self, values: Path, tmp_path: Path) -> None:
        """Helm prints them only where it installs, so here they are rendered as text of a ConfigMap."""
        chart = tmp_path / "chart"
        shutil.copytree(CHART, chart)
        (chart / "templates" / "NOTES.txt").rename(chart / "files" / "NOTES.txt")
        (chart / "templates" / "notes.yaml").write_text(
            "{kind: ConfigMap, metadata: {name: notes}, data: {text: {{ tpl (.Files.Get "
            '"files/NOTES.txt") . | quote }}}}'
        )
        objects = read_objects(render(values, chart=chart))
        said = objects["ConfigMap", "notes"]["data"]["text"]
        for command in re.findall(r"deploy/(\S+) -- matyan-celery (\w+)", said):
            assert ("Deployment", command[0]) in objects
        assert said.count("-- matyan-celery") == 2
        assert ("service/" in said) == any(name.endswith("-flower") for _, name in objects)


def check_models(custom: list[Object]) -> str:
    folder = find_model_checker()
    done = subprocess.run(
        ["node", "validate.mjs"], cwd=folder, input=json.dumps(custom), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestPromises:
    def test_pods_are_restricted(self, objects: dict[tuple[str, str], Object]) -> None:
        for pod in list_pods(objects).values():
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["automountServiceAccountToken"] is False
            for container in pod["containers"] + pod.get("initContainers", []):
                security = container["securityContext"]
                assert security["allowPrivilegeEscalation"] is False
                assert security["readOnlyRootFilesystem"] is True
                assert security["capabilities"] == {"drop": ["ALL"]}
                assert {"name": "tmp", "mountPath": "/tmp"} in container["volumeMounts"]
                assert "command" not in container, "the image's tini stays process 1"
                assert "limits" in container["resources"]

    def test_each_role_has_three_probes(self, objects: dict[tuple[str, str], Object]) -> None:
        for role, pod in list_pods(objects).items():
            (container,) = pod["containers"]
            probes = [container[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
            if role == "flower":
                assert all(probe["httpGet"]["path"].endswith("/healthcheck") for probe in probes)
            elif list_settings(objects)["METRICS_PORT"] == "0":
                assert [probe["exec"]["command"] for probe in probes] == [
                    ["matyan-celery", "health", role, "--probe", probe] for probe in ("started", "live", "ready")
                ]
            else:
                assert [probe["httpGet"]["path"] for probe in probes] == ["/startupz", "/livez", "/readyz"]
                (port,) = container["ports"]
                assert port["containerPort"] == int(list_settings(objects)["METRICS_PORT"])
            assert probes[0]["failureThreshold"] > probes[1]["failureThreshold"]

    def test_selectors_find_their_pods(self, objects: dict[tuple[str, str], Object]) -> None:
        labels = {
            name: one["spec"]["template"]["metadata"]["labels"]
            for (kind, name), one in objects.items()
            if kind == "Deployment"
        }
        found = 0
        for (kind, name), one in objects.items():
            spec = one.get("spec", {})
            match kind:
                case "Deployment" | "PodDisruptionBudget":
                    selectors = [spec["selector"]["matchLabels"]]
                case "Service":
                    selectors = [spec["selector"]]
                case "NetworkPolicy":
                    selectors = [spec["podSelector"]["matchLabels"]]
                case _:
                    continue
            for selector in selectors:
                chosen = {role for role, given in labels.items() if selector.items() <= given.items()}
                if kind in {"Deployment", "PodDisruptionBudget"} or name.endswith("-flower"):
                    assert chosen == {name}
                else:
                    assert chosen == set(labels)
                found += 1
        assert found >= 4

    def test_what_scales_targets_a_deployment_without_a_number(self, objects: dict[tuple[str, str], Object]) -> None:
        targets = {
            one["spec"]["scaleTargetRef"]["name"]: one["spec"]
            for (kind, _), one in objects.items()
            if kind in {"ScaledObject", "HorizontalPodAutoscaler"}
        }
        for (kind, name), one in objects.items():
            if kind == "Deployment":
                assert ("replicas" in one["spec"]) == (name not in targets), name
        for name in targets:
            assert ("Deployment", name) in objects

    def test_secrets_are_in_no_config_map(self, objects: dict[tuple[str, str], Object]) -> None:
        text = json.dumps([one for (kind, _), one in objects.items() if kind != "Secret"])
        for secret in ("rediss://", "redis://", "s3cret", "user:password"):
            assert secret not in text, secret

    def test_every_secret_key_that_is_asked_for_is_there(self, objects: dict[tuple[str, str], Object]) -> None:
        made = {name: one["stringData"] for (kind, name), one in objects.items() if kind == "Secret"}
        existing = {"redis", "sentinels", "kafka", "s3", "blob-uri", "flower"}
        asked = 0
        for pod in list_pods(objects).values():
            for variable in pod["containers"][0]["env"]:
                if "valueFrom" in variable:
                    wanted = variable["valueFrom"]["secretKeyRef"]
                    asked += 1
                    assert wanted["name"] in existing or wanted["key"] in made[wanted["name"]], variable
        assert asked >= 4

    def test_settings_exist_and_are_valid(self, objects: dict[tuple[str, str], Object]) -> None:
        settings = list_settings(objects)
        unknown = {name for name in settings if name.lower() not in Settings.model_fields}
        assert unknown == set()
        given = {name.lower(): value for name, value in settings.items()}
        given.pop("matyan_environment", None)  # production asks for the Secrets' values too
        if "redis_sentinel_master" in given:
            given["redis_url"] = "sentinel://a,b,c/0"
        load_settings(None, **given)


class TestRefusals:
    @pytest.mark.parametrize(
        ("given", "why"),
        [
            (("kafkaClient.bootstrapServers=",), "kafkaClient.bootstrapServers is required"),
            (("redis.url=",), "redis.url or redis.existingSecret is required"),
            (("redis.url=sentinel://a/0",), "redis.sentinel.master is required"),
            (("settings.QUEUE_PREFIX=a.",), "set redis.queuePrefix instead"),
            (("fdb-cluster.clusterFileContent=",), "one of clusterFileContent"),
            (("flower.enabled=true",), "flower.basicAuth or flower.existingSecret is required"),
            (("keda.enabled=true", "hpa.enabled=true"), "choose one"),
            (("keda.enabled=true",), "keda.worker.prometheusAddress is required"),
            (("settings.DRAIN_SECONDS=45",), "bridge.terminationGracePeriodSeconds must be above DRAIN_SECONDS"),
            (("settings.TASK_TIME_LIMIT_SECONDS=60",), "worker.terminationGracePeriodSeconds must be above"),
            (("settings.CLEANUP_SLICE_SECONDS=40",), "cleaner.terminationGracePeriodSeconds must be above"),
            (("metrics.port=0", "metrics.serviceMonitor.enabled=true"), "serviceMonitor needs metrics.port"),
            (("allRoles.extraVolumes[0].name=tmp",), 'bridge: there is a volume "tmp" already'),
            (
                ("allRoles.extraVolumes[0].name=ca", "beat.extraVolumes[0].name=ca"),
                'beat: there is a volume "ca" already',
            ),
            (
                ("flower.extraVolumeMounts[0].name=ca", "flower.extraVolumeMounts[0].mountPath=/ca"),
                'flower: extraVolumeMounts names the volume "ca", which is not in extraVolumes',
            ),
            (("keda.bridge.caSecret=ca",), "kafkaClient.securityProtocol must be SSL or SASL_SSL"),
            (
                (
                    "keda.worker.secretTargetRef[0].parameter=bearerToken",
                    "keda.worker.secretTargetRef[0].name=prometheus",
                    "keda.worker.secretTargetRef[0].key=token",
                ),
                "keda.worker.authModes is required",
            ),
            (
                ("keda.enabled=true", "keda.worker.prometheusAddress=http://p", "kafkaClient.saslUsername=u"),
                "kafkaClient.saslMechanism must be PLAIN",
            ),
        ],
    )
    def test_contradictions(self, given: tuple[str, ...], why: str) -> None:
        with pytest.raises(ValueError, match=re.escape(why)):
            render(LEAST, *given)

    @pytest.mark.parametrize(
        "given",
        [
            "brigde.replicaCount=2",
            "bridge.replicas=2",
            "worker.concurrency=0",
            "logLevel=loud",
            "blobBackendType=ftp",
            "redis.url=http://redis",
            "redis.queuePrefix=a/",
            "redis.keyPrefix=a*",
            "settings.lower_case=1",
            "metrics.port=70000",
            "image.pullPolicy=Sometimes",
            "networkPolicy.egressPorts={70000}",
            "networkPolicy.egressPorts={4500:4510}",
            "allRoles.extraVolumeMounts[0].name=ca",
            "jobs.initContainers[0].name=first",
            "worker.extraEnv[0].value=nameless",
            "keda.worker.authModes=password",
            "keda.bridge.secretTargetRef[0].parameter=ca",
        ],
    )
    def test_values_that_the_schema_refuses(self, given: str) -> None:
        with pytest.raises(ValueError, match="don't meet the specifications of the schema"):
            render(LEAST, given)

    def test_the_defaults_leave_them_the_time_to_end(self) -> None:
        pods = list_pods(read_objects(render(LEAST)))
        defaults = load_settings(None)
        grace = {role: pod["terminationGracePeriodSeconds"] for role, pod in pods.items()}
        assert grace["bridge"] >= defaults.drain_seconds + 20
        assert grace["worker"] >= defaults.task_time_limit_seconds + 10
        assert grace["cleaner"] >= cleanup_limit(defaults) + 10


class TestIdentity:
    def test_without_keys_it_is_the_clouds_own(self) -> None:
        for given, keys in (
            (("s3.accessKey=", "s3.secretKey="), {"S3_ACCESS_KEY": "", "S3_SECRET_KEY": ""}),
            (("s3.accessKey=", "settings.S3_ACCESS_KEY=mine"), {}),
            ((), {"S3_ACCESS_KEY": None, "S3_SECRET_KEY": None}),
        ):
            for pod in list_pods(read_objects(render(LEAST, *given))).values():
                env = pod["containers"][0]["env"]
                assert {one["name"]: one.get("value") for one in env if one["name"].startswith("S3_")} == keys


class TestAdditions:
    """What a platform adds: to all pods, or to those of one role."""

    @staticmethod
    def of(*given: str) -> dict[str, Object]:
        return list_pods(read_objects(render(LEAST, *ALL_ON, *given)))

    @pytest.mark.parametrize("role", ["bridge", "worker", "cleaner", "jobs", "beat", "flower"])
    def test_a_file_is_mounted_in_one_role(self, role: str) -> None:
        mount = {"name": "ca", "mountPath": "/etc/ca"}
        pods = self.of(
            f"{role}.extraVolumes[0].name=ca",
            f"{role}.extraVolumes[0].configMap.name=private-ca",
            f"{role}.extraVolumeMounts[0].name=ca",
            f"{role}.extraVolumeMounts[0].mountPath=/etc/ca",
        )
        having = {name for name, pod in pods.items() if mount in pod["containers"][0]["volumeMounts"]}
        assert having == {role}
        assert {"name": "ca", "configMap": {"name": "private-ca"}} in pods[role]["volumes"]
        (wait,) = pods[role]["initContainers"]
        assert mount in wait["volumeMounts"], "it asks Kafka and Redis too"

    def test_what_all_have_reaches_each_and_its_waiting(self) -> None:
        pods = self.of(
            "allRoles.extraVolumes[0].name=ca",
            "allRoles.extraVolumes[0].secret.secretName=private-ca",
            "allRoles.extraVolumeMounts[0].name=ca",
            "allRoles.extraVolumeMounts[0].mountPath=/etc/ca",
            "allRoles.extraEnv[0].name=KAFKA_SSL_CA_LOCATION",
            "allRoles.extraEnv[0].value=/etc/ca/ca.crt",
            "allRoles.extraEnvFrom[0].secretRef.name=more",
            "allRoles.priorityClassName=high",
            "beat.priorityClassName=low",
        )
        assert len(pods) == 6
        for role, pod in pods.items():
            assert pod["priorityClassName"] == ("low" if role == "beat" else "high")
            for container in [*pod["containers"], *pod["initContainers"]]:
                assert {"name": "ca", "mountPath": "/etc/ca"} in container["volumeMounts"]
                assert {"name": "KAFKA_SSL_CA_LOCATION", "value": "/etc/ca/ca.crt"} in container["env"]
                assert {"secretRef": {"name": "more"}} in container["envFrom"]

    def test_containers_of_others_run_first(self) -> None:
        pods = self.of(
            "allRoles.initContainers[0].name=first",
            "allRoles.initContainers[0].image=busybox:1.37",
            "worker.initContainers[0].name=second",
            "worker.initContainers[0].image=busybox:1.37",
        )
        assert [one["name"] for one in pods["worker"]["initContainers"]] == ["first", "second", "wait"]
        assert [one["name"] for one in pods["beat"]["initContainers"]] == ["first", "wait"]

    def test_they_run_where_nothing_waits(self) -> None:
        given = [f"{name}.waitForReady.enabled=false" for name in ("kafka", "redis", "fdbClient")]
        (first,) = self.of(*given, "jobs.initContainers[0].name=first", "jobs.initContainers[0].image=b:1")["jobs"][
            "initContainers"
        ]
        assert first == {"name": "first", "image": "b:1"}
        assert "initContainers" not in self.of(*given)["jobs"]

    def test_annotations(self) -> None:
        objects = read_objects(
            render(
                LEAST,
                "commonAnnotations.owner=all",
                "worker.annotations.owner=worker",
                "allRoles.podAnnotations.mesh=off",
                "beat.podAnnotations.mesh=on",
            )
        )
        for role, owner, mesh in (("worker", "worker", "off"), ("beat", "all", "on"), ("bridge", "all", "off")):
            deployment = objects["Deployment", f"{FULL}-{role}"]
            assert deployment["metadata"]["annotations"]["owner"] == owner
            assert deployment["spec"]["template"]["metadata"]["annotations"]["mesh"] == mesh


class TestNetwork:
    def test_ports_may_be_ranges(self) -> None:
        given = ("networkPolicy.enabled=true", "networkPolicy.egressPorts={4500-4510,443}")
        objects = read_objects(render(LEAST, *given))
        rules = objects["NetworkPolicy", FULL]["spec"]["egress"]
        assert rules[1]["ports"] == [
            {"port": 4500, "endPort": 4510, "protocol": "TCP"},
            {"port": 443, "protocol": "TCP"},
        ]

    def test_the_operators_ports_are_among_them(self) -> None:
        rules = read_objects(render(LEAST, "networkPolicy.enabled=true"))["NetworkPolicy", FULL]["spec"]["egress"]
        assert {"port": 4500, "endPort": 4510, "protocol": "TCP"} in rules[1]["ports"]


class TestScaling:
    def test_bridges_are_never_more_than_partitions(self) -> None:
        for given, kind in (
            (("keda.enabled=true", "keda.worker.prometheusAddress=http://p"), "ScaledObject"),
            (("hpa.enabled=true",), "HorizontalPodAutoscaler"),
        ):
            for partitions, most in ((3, 3), (50, 6)):
                objects = read_objects(render(LEAST, *given, f"kafka.dataIngestionPartitions={partitions}"))
                spec = objects[kind, f"{FULL}-bridge"]["spec"]
                assert spec.get("maxReplicaCount", spec.get("maxReplicas")) == most

    def test_keda_looks_at_our_group_and_our_metric(self) -> None:
        given = ("keda.enabled=true", "keda.worker.prometheusAddress=http://p", "settings.INGEST_GROUP=mine")
        objects = read_objects(render(LEAST, *given))
        (kafka,) = objects["ScaledObject", f"{FULL}-bridge"]["spec"]["triggers"]
        assert kafka["metadata"]["consumerGroup"] == "mine"
        assert kafka["metadata"]["topic"] == "data-ingestion"
        (prometheus,) = objects["ScaledObject", f"{FULL}-worker"]["spec"]["triggers"]
        assert prometheus["metadata"]["query"] == "max(matyan_bridge_oldest_unapplied_seconds)"

    def test_keda_is_let_in_where_tls_and_passwords_are_asked_for(self) -> None:
        given = (
            "keda.enabled=true",
            "keda.worker.prometheusAddress=https://p",
            "keda.worker.authModes=bearer",
            "keda.worker.secretTargetRef[0].parameter=bearerToken",
            "keda.worker.secretTargetRef[0].name=prometheus",
            "keda.worker.secretTargetRef[0].key=token",
            "keda.bridge.caSecret=kafka-ca",
            "kafkaClient.securityProtocol=SASL_SSL",
            "kafkaClient.saslMechanism=SCRAM-SHA-512",
            "kafkaClient.existingSecret=kafka",
        )
        objects = read_objects(render(LEAST, *given))
        for role, name, wanted in (
            ("bridge", "kafka", {"username": "kafka", "password": "kafka", "ca": "kafka-ca"}),
            ("worker", "prometheus", {"bearerToken": "prometheus"}),
        ):
            (trigger,) = objects["ScaledObject", f"{FULL}-{role}"]["spec"]["triggers"]
            assert trigger["authenticationRef"] == {"name": f"{FULL}-{name}"}
            targets = objects["TriggerAuthentication", f"{FULL}-{name}"]["spec"]["secretTargetRef"]
            assert {target["parameter"]: target["name"] for target in targets} == wanted
        (kafka,) = objects["ScaledObject", f"{FULL}-bridge"]["spec"]["triggers"]
        assert (kafka["metadata"]["tls"], kafka["metadata"]["sasl"]) == ("enable", "scram_sha512")

    def test_keda_needs_no_password_of_kafka_for_tls_alone(self) -> None:
        given = ("keda.enabled=true", "keda.worker.prometheusAddress=http://p", "kafkaClient.securityProtocol=SSL")
        objects = read_objects(render(LEAST, *given))
        assert not [name for kind, name in objects if kind == "TriggerAuthentication"]
        objects = read_objects(render(LEAST, *given, "keda.bridge.caSecret=kafka-ca"))
        (target,) = objects["TriggerAuthentication", f"{FULL}-kafka"]["spec"]["secretTargetRef"]
        assert target == {"parameter": "ca", "name": "kafka-ca", "key": "ca.crt"}

    def test_there_is_one_beat(self, objects: dict[tuple[str, str], Object]) -> None:
        (beat,) = [one for (kind, name), one in objects.items() if kind == "Deployment" and name.endswith("-beat")]
        assert beat["spec"]["replicas"] == 1
        assert beat["spec"]["strategy"] == {"type": "Recreate"}


class TestOneSource:
    def test_the_alerts_are_those_of_the_file(self) -> None:
        file = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
        given = ("metrics.prometheusRule.enabled=true", "metrics.prometheusRule.runbookUrl=https://example.com/runbook")
        rule = read_objects(render(LEAST, *given))["PrometheusRule", FULL]["spec"]
        as_text = json.dumps(rule).replace("https://example.com/runbook#", "docs/runbook.md#")
        assert json.loads(as_text) == file
        assert "https://example.com/runbook#matyanbridgedown" in json.dumps(rule)

    def test_the_dashboard_is_that_of_the_file(self) -> None:
        objects = read_objects(render(LEAST, "metrics.dashboard.enabled=true"))
        made = objects["ConfigMap", f"{FULL}-dashboard"]
        assert json.loads(made["data"]["matyan-celery.json"]) == json.loads(
            (CHART / "files" / "matyan-celery.json").read_text()
        )
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"

    def test_roles_are_started_as_compose_starts_them(self) -> None:
        services = read_compose(ROOT / "compose.yaml")["services"]
        pods = list_pods(read_objects(render(LEAST, *ALL_ON)))
        assert set(pods) == {"bridge", "worker", "cleaner", "jobs", "beat", "flower"}
        for role, pod in pods.items():
            assert pod["containers"][0]["args"] == services[role]["command"]


class TestValues:
    def test_every_value_has_a_comment(self) -> None:
        values = read_values((CHART / "values.yaml").read_text())
        assert len(values) > 150
        assert [value.name for value in values if not value.comment] == []

    def test_the_table_in_the_readme_is_of_these_values(self) -> None:
        """After a change: python -m tests.deploy.values."""
        readme = (CHART / "README.md").read_text()
        assert replace_table(readme, render_table(read_values((CHART / "values.yaml").read_text()))) == readme

    def test_the_schema_knows_every_value(self) -> None:
        schema = json.loads((CHART / "values.schema.json").read_text())
        for value in read_values((CHART / "values.yaml").read_text()):
            part = schema
            for name in value.name.split("."):
                part = schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part
                assert name in part["properties"], value.name
                part = part["properties"][name]

{{- define "matyan-celery.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "matyan-celery.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "matyan-celery.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "matyan-celery.selector" -}}
app.kubernetes.io/name: {{ include "matyan-celery.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "matyan-celery.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "matyan-celery.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "matyan-celery.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "matyan-celery.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "matyan-celery.clusterFile" -}}
{{ .Values.fdbClient.clusterFileDir }}/{{ .Values.fdbClient.clusterFileName }}
{{- end -}}

{{/* What is wrong with the values and no schema can say. Included once. */}}
{{- define "matyan-celery.check" -}}
{{- if not .Values.kafkaClient.bootstrapServers -}}
{{- fail "kafkaClient.bootstrapServers is required, for example kafka:9092" -}}
{{- end -}}
{{- if not (or .Values.redis.url .Values.redis.existingSecret) -}}
{{- fail "redis.url or redis.existingSecret is required" -}}
{{- end -}}
{{- if and (hasPrefix "sentinel" .Values.redis.url) (not .Values.redis.sentinel.master) -}}
{{- fail "redis.sentinel.master is required: the name by which the sentinels in redis.url know the master" -}}
{{- end -}}
{{- if hasKey .Values.settings "QUEUE_PREFIX" -}}
{{- fail "settings.QUEUE_PREFIX: set redis.queuePrefix instead, since the workers' command lines name queues too" -}}
{{- end -}}
{{- $fdb := index .Values "fdb-cluster" -}}
{{- if not (or $fdb.clusterFileContent $fdb.existingConfigMap $fdb.existingSecret) -}}
{{- fail "fdb-cluster: one of clusterFileContent, existingConfigMap and existingSecret is required" -}}
{{- end -}}
{{- if and .Values.keda.enabled .Values.hpa.enabled -}}
{{- fail "keda.enabled and hpa.enabled would both set the number of pods: choose one" -}}
{{- end -}}
{{- if and .Values.keda.enabled (not .Values.keda.worker.prometheusAddress) -}}
{{- fail "keda.worker.prometheusAddress is required: workers are scaled by a metric" -}}
{{- end -}}
{{- if and .Values.flower.enabled (not (or .Values.flower.basicAuth .Values.flower.existingSecret)) -}}
{{- fail "flower.basicAuth or flower.existingSecret is required: whoever reaches Flower can start tasks" -}}
{{- end -}}
{{- range $role := list "bridge" "worker" "cleaner" "jobs" "beat" "flower" -}}
{{- $own := index $.Values $role -}}
{{- $volumes := dict "tmp" "" "fdb-cluster" "" -}}
{{- range concat $.Values.allRoles.extraVolumes $own.extraVolumes -}}
{{- if hasKey $volumes .name -}}
{{- fail (printf "%s: there is a volume %q already: give yours in extraVolumes another name" $role .name) -}}
{{- end -}}
{{- $_ := set $volumes .name "" -}}
{{- end -}}
{{- range concat $.Values.allRoles.extraVolumeMounts $own.extraVolumeMounts -}}
{{- if not (hasKey $volumes .name) -}}
{{- fail (printf "%s: extraVolumeMounts names the volume %q, which is not in extraVolumes" $role .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.keda.bridge.caSecret (not (hasSuffix "SSL" .Values.kafkaClient.securityProtocol)) -}}
{{- fail "keda.bridge.caSecret is for Kafka with TLS: kafkaClient.securityProtocol must be SSL or SASL_SSL" -}}
{{- end -}}
{{- if and (eq .Values.keda.worker.authModes "") .Values.keda.worker.secretTargetRef -}}
{{- fail "keda.worker.authModes is required where keda.worker.secretTargetRef is given: KEDA would not use it" -}}
{{- end -}}
{{- $drain := index .Values.settings "DRAIN_SECONDS" | default 20 | float64 -}}
{{- if lt (float64 .Values.bridge.terminationGracePeriodSeconds) (addf $drain 20) -}}
{{- fail (printf "bridge.terminationGracePeriodSeconds must be above DRAIN_SECONDS (%v) by 20 at least" $drain) -}}
{{- end -}}
{{- $limit := index .Values.settings "TASK_TIME_LIMIT_SECONDS" | default 30 | float64 -}}
{{- if lt (float64 .Values.worker.terminationGracePeriodSeconds) (addf $limit 10) -}}
{{- fail (printf "worker.terminationGracePeriodSeconds must be above TASK_TIME_LIMIT_SECONDS (%v) by 10 at least" $limit) -}}
{{- end -}}
{{- $slice := index .Values.settings "CLEANUP_SLICE_SECONDS" | default 20 | float64 -}}
{{- if lt (float64 .Values.cleaner.terminationGracePeriodSeconds) (addf $slice 70) -}}
{{- fail (printf "cleaner.terminationGracePeriodSeconds must be above CLEANUP_SLICE_SECONDS (%v) by 70 at least" $slice) -}}
{{- end -}}
{{- end -}}

{{/* Name of the Secret that holds a credential: (list $ existing). */}}
{{- define "matyan-celery.secret" -}}
{{- $root := index . 0 -}}
{{- index . 1 | default (include "matyan-celery.fullname" $root) -}}
{{- end -}}

{{/* Credentials as environment variables, from existing Secrets or the chart's own. */}}
{{- define "matyan-celery.credentials" -}}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "matyan-celery.secret" (list . .Values.redis.existingSecret) }}
      key: {{ ternary .Values.redis.urlKey "redis-url" (ne .Values.redis.existingSecret "") }}
{{- $sentinel := .Values.redis.sentinel }}
{{- if or $sentinel.existingSecret $sentinel.password }}
- name: REDIS_SENTINEL_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "matyan-celery.secret" (list . $sentinel.existingSecret) }}
      key: {{ ternary $sentinel.passwordKey "sentinel-password" (ne $sentinel.existingSecret "") }}
{{- end }}
{{- $kafka := .Values.kafkaClient }}
{{- if or $kafka.existingSecret $kafka.saslUsername }}
- name: KAFKA_SASL_USERNAME
  valueFrom:
    secretKeyRef:
      name: {{ include "matyan-celery.secret" (list . $kafka.existingSecret) }}
      key: {{ ternary $kafka.saslUsernameKey "sasl-username" (ne $kafka.existingSecret "") }}
- name: KAFKA_SASL_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "matyan-celery.secret" (list . $kafka.existingSecret) }}
      key: {{ ternary $kafka.saslPasswordKey "sasl-password" (ne $kafka.existingSecret "") }}
{{- end }}
{{- $s3 := .Values.s3 }}
{{- if or $s3.existingSecret $s3.accessKey }}
- name: S3_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "matyan-celery.secret" (list . $s3.existingSecret) }}
      key: {{ ternary $s3.accessKeyKey "s3-access-key" (ne $s3.existingSecret "") }}
- name: S3_SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "matyan-celery.secret" (list . $s3.existingSecret) }}
      key: {{ ternary $s3.secretKeyKey "s3-secret-key" (ne $s3.existingSecret "") }}
{{- else if not (hasKey .Values.settings "S3_ACCESS_KEY") }}
- {name: S3_ACCESS_KEY, value: ""}
- {name: S3_SECRET_KEY, value: ""}
{{- end }}
{{- if .Values.azure.connStr }}
- name: AZURE_CONN_STR
  valueFrom:
    secretKeyRef:
      name: {{ include "matyan-celery.fullname" . }}
      key: azure-conn-str
{{- end }}
{{- $uri := .Values.blobUriSecret }}
{{- if or $uri.existingSecret $uri.value }}
- name: BLOB_URI_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ include "matyan-celery.secret" (list . $uri.existingSecret) }}
      key: {{ ternary $uri.key "blob-uri-secret" (ne $uri.existingSecret "") }}
{{- end }}
{{- end -}}

{{- define "matyan-celery.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* The three probes of a role: (list $ role). Liveness asks no dependency, so none that is away restarts pods. */}}
{{- define "matyan-celery.probes" -}}
{{- $root := index . 0 -}}
{{- $role := index . 1 -}}
{{- $probes := $root.Values.probes -}}
{{- range $probe := list (list "startupProbe" "/startupz" "started") (list "livenessProbe" "/livez" "live") (list "readinessProbe" "/readyz" "ready") }}
{{ index $probe 0 }}:
  {{- if $root.Values.metrics.port }}
  httpGet: {path: {{ index $probe 1 }}, port: metrics}
  {{- else }}
  exec: {command: [matyan-celery, health, {{ $role }}, --probe, {{ index $probe 2 }}]}
  {{- end }}
  periodSeconds: {{ $probes.periodSeconds }}
  timeoutSeconds: {{ $probes.timeoutSeconds }}
  failureThreshold: {{ ternary $probes.startupFailureThreshold $probes.failureThreshold (eq (index $probe 0) "startupProbe") }}
{{- end }}
{{- end -}}

{{/* What `matyan-celery wait` waits for, comma-separated, and how long. */}}
{{- define "matyan-celery.waitFor" -}}
{{- $for := list -}}
{{- if .Values.fdbClient.waitForReady.enabled }}{{ $for = append $for "store" }}{{ end -}}
{{- if .Values.kafka.waitForReady.enabled }}{{ $for = append $for "kafka" }}{{ end -}}
{{- if .Values.redis.waitForReady.enabled }}{{ $for = append $for "redis" }}{{ end -}}
{{- join "," $for -}}
{{- end -}}

{{- define "matyan-celery.waitSeconds" -}}
{{- max .Values.fdbClient.waitForReady.timeoutSeconds .Values.kafka.waitForReady.timeoutSeconds .Values.redis.waitForReady.timeoutSeconds -}}
{{- end -}}

{{/*
The Deployment of one role. A dict:
  root; role: its key in the values, and its name; args: of its container;
  replicas: a number, or nothing where something else sets it; recreate: whether the old pod goes first;
  env: more environment variables, as YAML; ports, probes: as YAML.
*/}}
{{- define "matyan-celery.deployment" -}}
{{- $root := .root -}}
{{- $values := index $root.Values .role -}}
{{- $all := $root.Values.allRoles -}}
{{- $full := include "matyan-celery.fullname" $root -}}
{{- $first := concat $all.initContainers $values.initContainers -}}
{{- $waitFor := include "matyan-celery.waitFor" $root -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $full }}-{{ .role }}
  labels:
    {{- include "matyan-celery.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .role }}
  {{- with merge dict $values.annotations $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if hasKey . "replicas" }}
  replicas: {{ .replicas }}
  {{- end }}
  {{- if .recreate }}
  strategy: {type: Recreate}
  {{- end }}
  selector:
    matchLabels:
      {{- include "matyan-celery.selector" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .role }}
  template:
    metadata:
      labels:
        {{- /* Without the chart's version, which would replace all pods where nothing else has changed. */}}
        {{- include "matyan-celery.selector" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .role }}
        {{- with $root.Values.commonLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        checksum/config: {{ include (print $root.Template.BasePath "/configmap.yaml") $root | sha256sum }}
        checksum/secret: {{ include (print $root.Template.BasePath "/secret.yaml") $root | sha256sum }}
        {{- with merge dict $values.podAnnotations $all.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "matyan-celery.serviceAccountName" $root }}
      automountServiceAccountToken: {{ $root.Values.serviceAccount.automountServiceAccountToken }}
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 10001
        runAsGroup: 10001
        fsGroup: 10001
        seccompProfile: {type: RuntimeDefault}
      {{- with $values.priorityClassName | default $all.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- if or $first $waitFor }}
      initContainers:
        {{- with $first }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- with $waitFor }}
        - name: wait
          image: {{ include "matyan-celery.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [matyan-celery, wait, --for, {{ . | quote }}, --timeout, {{ include "matyan-celery.waitSeconds" $root | quote }}]
          {{- include "matyan-celery.environment" (dict "root" $root "values" $values) | nindent 10 }}
          {{- include "matyan-celery.containerSecurity" $root | nindent 10 }}
          {{- include "matyan-celery.mounts" (dict "root" $root "values" $values) | nindent 10 }}
          resources:
            requests: {cpu: 50m, memory: 128Mi}
            limits: {memory: 256Mi}
        {{- end }}
      {{- end }}
      containers:
        - name: {{ .role }}
          image: {{ include "matyan-celery.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: {{ toJson .args }}
          {{- with .ports }}
          ports:
            {{- . | nindent 12 }}
          {{- end }}
          {{- include "matyan-celery.environment" (dict "root" $root "values" $values "env" .env) | nindent 10 }}
          {{- .probes | trim | nindent 10 }}
          {{- include "matyan-celery.containerSecurity" $root | nindent 10 }}
          {{- include "matyan-celery.mounts" (dict "root" $root "values" $values) | nindent 10 }}
          {{- with $values.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
      volumes:
        - name: tmp
          emptyDir: {}
        - name: fdb-cluster
          {{- $fdb := index $root.Values "fdb-cluster" }}
          {{- if $fdb.existingSecret }}
          secret:
            secretName: {{ $fdb.existingSecret }}
          {{- else }}
          configMap:
            name: {{ $fdb.existingConfigMap | default (printf "%s-fdb-cluster" $full) }}
          {{- end }}
            items:
              - key: {{ $root.Values.fdbClient.clusterFileKey }}
                path: {{ $root.Values.fdbClient.clusterFileName }}
        {{- with concat $all.extraVolumes $values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- range . }}
        - labelSelector:
            matchLabels:
              {{- include "matyan-celery.selector" $root | nindent 14 }}
              app.kubernetes.io/component: {{ $.role }}
          {{- toYaml . | nindent 10 }}
        {{- end }}
      {{- end }}
{{- end -}}

{{- define "matyan-celery.image" -}}
{{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
{{- end -}}

{{/* Environment of a container: a dict of root, values (of its role) and env (more of it, as YAML). */}}
{{- define "matyan-celery.environment" -}}
env:
  {{- include "matyan-celery.credentials" .root | nindent 2 }}
  {{- with .env }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with concat .root.Values.allRoles.extraEnv .values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
envFrom:
  - configMapRef:
      name: {{ include "matyan-celery.fullname" .root }}
  {{- with concat .root.Values.allRoles.extraEnvFrom .values.extraEnvFrom }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What a container has mounted: a dict of root and values (of its role). */}}
{{- define "matyan-celery.mounts" -}}
volumeMounts:
  - name: tmp
    mountPath: /tmp
  - name: fdb-cluster
    mountPath: {{ .root.Values.fdbClient.clusterFileDir }}
    readOnly: true
  {{- with concat .root.Values.allRoles.extraVolumeMounts .values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* The port that metrics and probes have. */}}
{{- define "matyan-celery.metricsPorts" -}}
{{- if .Values.metrics.port -}}
- {name: metrics, containerPort: {{ .Values.metrics.port }}, protocol: TCP}
{{- end -}}
{{- end -}}

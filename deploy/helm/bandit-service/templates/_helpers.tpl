{{- define "bandit.name" -}}
{{- .Values.nameOverride | default "bandit-service" | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "bandit.fullname" -}}
{{- $name := include "bandit.name" . -}}
{{- $long := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- .Values.fullnameOverride | default $long | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "bandit.selector" -}}
app.kubernetes.io/name: {{ include "bandit.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bandit.labels" -}}
{{ include "bandit.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
{{- end -}}

{{- define "bandit.account" -}}
{{- .Values.serviceAccount.name | default (ternary (include "bandit.fullname" .) "" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "bandit.replicas" -}}
{{- if kindIs "invalid" .Values.replicas -}}
{{- ternary 1 3 (eq .Values.log.engine "sqlite") -}}
{{- else -}}
{{- .Values.replicas -}}
{{- end -}}
{{- end -}}

{{- /* What the schema cannot say in words, or says of two values. Called by the StatefulSet, which is always rendered. */ -}}
{{- define "bandit.check" -}}
{{- $one := "log.engine is sqlite, whose log has one writer" -}}
{{- $other := "set log.engine to postgres or jetstream" -}}
{{- if eq .Values.log.engine "sqlite" -}}
{{- if gt (int (include "bandit.replicas" .)) 1 -}}
{{- fail (printf "replicas is %d and %s: %s, or replicas to 1" (int .Values.replicas) $one $other) -}}
{{- end -}}
{{- if .Values.autoscaling.enabled -}}
{{- fail (printf "autoscaling.enabled is true and %s: %s, or autoscaling.enabled to false" $one $other) -}}
{{- end -}}
{{- if .Values.migrate -}}
{{- fail (printf "migrate is true and log.engine is sqlite: %s, where the log is moved to" $other) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.autoscaling.enabled (not (kindIs "invalid" .Values.replicas)) -}}
{{- fail "replicas and autoscaling.enabled are set: the autoscaler sets the number; leave replicas out" -}}
{{- end -}}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) -}}
{{- fail (printf "autoscaling.minReplicas is %d, more than autoscaling.maxReplicas, %d" (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas)) -}}
{{- end -}}
{{- range .Values.env -}}
{{- if has .name (list "BANDIT_LOG_ENGINE" "BANDIT_LOG_NAME" "BANDIT_LOG_DSN_FILE" "BANDIT_SECURITY_KEYS_FILE" "BANDIT_SERVER_HOST" "BANDIT_SERVER_ALLOWED_HOSTS" "BANDIT_SERVER_DRAIN_S" "BANDIT_SERVER_SHUTDOWN_S" "BANDIT_SERVER_INSECURE" "BANDIT_DATA_DIR") -}}
{{- fail (printf "env: %s is set by the chart; use the values log, secret, allowedHosts, drainSeconds or shutdownSeconds" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The part of the pod that the service and the migration share. */ -}}
{{- define "bandit.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false # their variables would look like settings (BANDIT_...)
{{- with include "bandit.account" . }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "bandit.container" -}}
image: {{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - {name: BANDIT_LOG_ENGINE, value: {{ .Values.log.engine }}}
  {{- if ne .Values.log.engine "sqlite" }}
  - {name: BANDIT_LOG_NAME, value: {{ .Values.log.name | quote }}}
  - {name: BANDIT_LOG_DSN_FILE, value: /run/secrets/bandit-service/{{ .Values.secret.dsn }}}
  {{- end }}
  - {name: BANDIT_SECURITY_KEYS_FILE, value: /run/secrets/bandit-service/{{ .Values.secret.keys }}}
  - {name: BANDIT_SERVER_HOST, value: 0.0.0.0}
  # Prometheus calls /metrics at the pod's address: allow the pod networks and the names of the Service.
  - {name: BANDIT_SERVER_ALLOWED_HOSTS, value: {{ concat .Values.podNetworks (list (include "bandit.fullname" .)) .Values.allowedHosts (ternary .Values.ingress.hosts list .Values.ingress.enabled) | uniq | join "," | quote }}}
  - {name: BANDIT_SERVER_DRAIN_S, value: {{ .Values.drainSeconds | quote }}}
  - {name: BANDIT_SERVER_SHUTDOWN_S, value: {{ .Values.shutdownSeconds | quote }}}
  - {name: BANDIT_SERVER_INSECURE, value: "true"} # TLS ends in front of the pod; without a key the service does not start
  {{- with .Values.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: data, mountPath: /data}
  - {name: tmp, mountPath: /tmp}
  - {name: configuration, mountPath: /etc/bandit-service, readOnly: true}
  - {name: secrets, mountPath: /run/secrets/bandit-service, readOnly: true}
{{- end -}}

{{- define "bandit.volumes" -}}
- name: tmp
  emptyDir: {}
- name: configuration
  configMap: {name: {{ include "bandit.fullname" . }}}
- name: secrets
  secret: {secretName: {{ .Values.secret.name }}, defaultMode: 0440}
{{- end -}}

{{/* The names, labels, images and flags that every template uses. */}}

{{- define "tern.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The labels that select the pods of a component: (dict "root" $ "component" "chat"). They never change. */}}
{{- define "tern.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "tern.labels" -}}
{{ include "tern.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "tern.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "tern.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "tern.name" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* A number without an exponent, as the program reads it. */}}
{{- define "tern.number" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* The flags that the chart fills in itself, which the values may not set again. */}}
{{- define "tern.ownFlags" -}}
node-name internal-listen internal-advertise internal-tls-cert internal-tls-key internal-tls-ca internal-tls-name internal-plaintext admin-listen drain-timeout profile etcd-endpoints etcd-prefix database-url
database-pool-size token-key-file token-verify-files chat-master-key-file gateway-listen gateway-tls-cert
gateway-tls-key gateway-plaintext media-ticket-key-file media-s3-endpoint media-s3-public-endpoint media-s3-region
media-s3-bucket media-s3-path-style media-s3-access-key-id media-s3-secret-access-key media-cdn-url media-cdn-key-file
push-apps
{{- end -}}

{{/* The arguments for a dict of flags. */}}
{{- define "tern.flags" -}}
{{- $own := splitList " " (include "tern.ownFlags" . | replace "\n" " ") -}}
{{- range $flag, $value := . }}
{{- if has $flag $own }}
{{- fail (printf "flags: --%s is filled in by the chart, from a value of its own" $flag) }}
{{- end }}
{{- if kindIs "bool" $value }}
{{- if $value }}
- --{{ $flag }}
{{- end }}
{{- else if kindIs "slice" $value }}
- {{ printf "--%s=%s" $flag (join "," $value) | quote }}
{{- else if not (kindIs "invalid" $value) }}
- {{ printf "--%s=%s" $flag (include "tern.number" $value) | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The name of a Secret that has to be there: (dict "root" $ "name" … "value" "database.existingSecret"). */}}
{{- define "tern.secret" -}}
{{- if .name -}}
{{- .name -}}
{{- else if .root.Values.eval.enabled -}}
{{- include "tern.name" .root }}-eval
{{- else -}}
{{- fail (printf "%s: name the Secret (README, \"Secrets\"), or try the chart with values-eval.yaml" .value) -}}
{{- end -}}
{{- end -}}

{{- define "tern.databaseSecret" -}}
{{- include "tern.secret" (dict "root" . "name" .Values.database.existingSecret "value" "database.existingSecret") -}}
{{- end -}}

{{- define "tern.databaseEnv" -}}
- name: TERN_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "tern.databaseSecret" . }}
      key: {{ .Values.database.urlKey }}
{{- end -}}

{{- define "tern.etcdEndpoints" -}}
{{- if .Values.etcd.endpoints -}}
{{- join "," .Values.etcd.endpoints -}}
{{- else if .Values.eval.enabled -}}
http://{{ include "tern.name" . }}-eval-etcd:2379
{{- else -}}
{{- fail "etcd.endpoints: where is etcd? Or try the chart with values-eval.yaml" -}}
{{- end -}}
{{- end -}}

{{/* The security context, which allows nothing that a pod does not need. User and group are the image's "nonroot". */}}
{{- define "tern.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "tern.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "tern.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{/*
A server of one pod: (dict "root" $ "component" "eval-etcd" "image" … "uid" 1000 "mount" "/data" "ports" (list 2379)
"command" (list …) "env" "…yaml…" "ready" "…yaml…" "writable" (list …) "callers" (list …)).

  uid       the user and group as which the server runs
  mount     where its volume is mounted
  ready     its readiness probe
  writable  further directories that it writes to
  callers   the components whose pods may connect to it
*/}}
{{- define "tern.server" }}
{{- $root := .root }}
{{- $name := printf "%s-%s" (include "tern.name" $root) .component }}
{{- $of := dict "root" $root "component" .component }}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ $name }}
  labels:
    {{- include "tern.labels" $of | nindent 4 }}
spec:
  serviceName: {{ $name }}
  replicas: 1
  selector:
    matchLabels:
      {{- include "tern.selector" $of | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "tern.labels" $of | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      enableServiceLinks: false
      securityContext:
        runAsNonRoot: true
        runAsUser: {{ .uid }}
        runAsGroup: {{ .uid }}
        fsGroup: {{ .uid }}
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: server
          image: {{ .image }}
          {{- with .command }}
          command:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .env }}
          env:
            {{- . | trim | nindent 12 }}
          {{- end }}
          ports:
            {{- range .ports }}
            - containerPort: {{ . }}
            {{- end }}
          readinessProbe:
            {{- .ready | trim | nindent 12 }}
            periodSeconds: 3
          resources:
            requests: {cpu: 50m, memory: 128Mi}
            limits: {memory: 1Gi}
          securityContext:
            {{- include "tern.containerSecurity" $root | nindent 12 }}
          volumeMounts:
            - name: data
              mountPath: {{ .mount }}
            {{- range $index, $path := .writable }}
            - name: scratch
              mountPath: {{ $path }}
              subPath: s{{ $index }}
            {{- end }}
      {{- if or .writable (not $root.Values.eval.storage) }}
      volumes:
        {{- if not $root.Values.eval.storage }}
        - name: data
          emptyDir: {}
        {{- end }}
        {{- if .writable }}
        - name: scratch
          emptyDir: {}
        {{- end }}
      {{- end }}
  {{- if $root.Values.eval.storage }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with $root.Values.eval.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ $root.Values.eval.storage }}
  {{- end }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}
  labels:
    {{- include "tern.labels" $of | nindent 4 }}
spec:
  selector:
    {{- include "tern.selector" $of | nindent 4 }}
  ports:
    {{- range .ports }}
    - name: p{{ . }}
      port: {{ . }}
    {{- end }}
{{- if $root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "tern.labels" $of | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "tern.selector" $of | nindent 6 }}
  policyTypes: [Ingress, Egress]
  egress: []
  ingress:
    {{- if .callers }}
    - ports:
        {{- range .ports }}
        - {port: {{ . }}, protocol: TCP}
        {{- end }}
      from:
        {{- range .callers }}
        {{- include "tern.peer" (dict "root" $root "component" .) | trim | nindent 8 }}
        {{- end }}
    {{- else }} []
    {{- end }}
{{- end }}
{{- end }}

{{- define "tern.eval.postgresEnv" }}
- name: POSTGRES_USER
  value: tern
- name: POSTGRES_DB
  value: tern
- name: PGDATA
  value: /var/lib/postgresql/data/pg
- name: POSTGRES_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ include "tern.name" . }}-eval
      key: password
{{- end }}
{{- define "tern.eval.objectsEnv" }}
- name: AWS_ACCESS_KEY_ID
  value: tern
- name: AWS_SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "tern.name" . }}-eval
      key: password
{{- end }}

{{/*
A role: its workload, headless Service, PodDisruptionBudget and HorizontalPodAutoscaler.

  include "tern.role" (dict "root" $ "role" "chat" "kind" "StatefulSet" "postgres" true)

A role's own file defines "tern.<role>.args", ".env", ".ports", ".mounts" and ".volumes" (each may be empty), and
".metrics" with the metrics besides processor time by which its HPA scales. Roles that own slots are StatefulSets: a pod
that comes back under its name gets the slots it had. A new role needs such a file, a block in values.yaml and
values.schema.json, a row in networkpolicies.yaml, and its name in helm/tests/chart.py.
*/}}

{{- define "tern.role" -}}
{{- $root := .root -}}
{{- $role := .role -}}
{{- $name := printf "%s-%s" (include "tern.name" $root) $role -}}
{{- $set := mergeOverwrite (deepCopy $root.Values.pods) (deepCopy (index $root.Values $role)) -}}
{{- $of := dict "root" $root "component" $role -}}
apiVersion: apps/v1
kind: {{ .kind }}
metadata:
  name: {{ $name }}
  labels:
    {{- include "tern.labels" $of | nindent 4 }}
spec:
  {{- if not $set.autoscaling.enabled }}
  replicas: {{ $set.replicas }}
  {{- end }}
  minReadySeconds: {{ $set.minReadySeconds }}
  revisionHistoryLimit: 5
  {{- if eq .kind "StatefulSet" }}
  serviceName: {{ $name }}
  # Pods start without waiting for each other. An update still replaces one at a time.
  podManagementPolicy: Parallel
  updateStrategy:
    type: RollingUpdate
  {{- else }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: 0
      maxSurge: 1
  {{- end }}
  selector:
    matchLabels:
      {{- include "tern.selector" $of | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "tern.labels" $of | nindent 8 }}
        {{- with $set.labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $set.annotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "tern.serviceAccount" $root }}
      automountServiceAccountToken: false
      # Kubernetes' variables for Services (TERN_…_PORT) could be mistaken for the program's own.
      enableServiceLinks: false
      {{- with include "tern.pullSecrets" $root | trim }}
      {{- . | nindent 6 }}
      {{- end }}
      securityContext:
        {{- include "tern.podSecurity" $root | nindent 8 }}
      # In this time the pod leaves its Services, drains, leaves the map in etcd, and exports its last traces.
      # If it has not ended then, it is killed.
      terminationGracePeriodSeconds: {{ add $root.Values.preStopSeconds $root.Values.drainTimeout $root.Values.graceMargin }}
      {{- with $set.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $set.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $set.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if ne $set.antiAffinity "none" }}
      affinity:
        podAntiAffinity:
          {{- if eq $set.antiAffinity "hard" }}
          requiredDuringSchedulingIgnoredDuringExecution:
            - topologyKey: kubernetes.io/hostname
              labelSelector:
                matchLabels:
                  {{- include "tern.selector" $of | nindent 18 }}
          {{- else }}
          preferredDuringSchedulingIgnoredDuringExecution:
            - weight: 100
              podAffinityTerm:
                topologyKey: kubernetes.io/hostname
                labelSelector:
                  matchLabels:
                    {{- include "tern.selector" $of | nindent 20 }}
          {{- end }}
      {{- end }}
      {{- with $set.spreadOver }}
      topologySpreadConstraints:
        {{- range . }}
        - topologyKey: {{ . }}
          maxSkew: 1
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "tern.selector" $of | nindent 14 }}
        {{- end }}
      {{- end }}
      {{- if and .postgres (eq $root.Values.migration.mode "initContainer") }}
      initContainers:
        {{- include "tern.migrateContainer" $root | nindent 8 }}
      {{- end }}
      containers:
        - name: tern
          image: {{ include "tern.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args:
            - serve
            - {{ $role }}
            - --node-name=$(POD_NAME)
            - --internal-listen={{ ternary "[::]" "0.0.0.0" $root.Values.ipv6 }}:7070
            - --internal-advertise={{ ternary "[$(POD_IP)]" "$(POD_IP)" $root.Values.ipv6 }}:7070
            - --admin-listen={{ ternary "[::]" "0.0.0.0" $root.Values.ipv6 }}:7071
            - --drain-timeout={{ $root.Values.drainTimeout }}
            - --profile={{ $root.Values.profile }}
            - --etcd-endpoints={{ include "tern.etcdEndpoints" $root }}
            - --etcd-prefix={{ $root.Values.etcd.prefix }}
            {{- if .postgres }}
            - --database-pool-size={{ $root.Values.database.poolSize }}
            {{- end }}
            {{- with include "tern.internalTls.args" $root | trim }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- include (printf "tern.%s.args" $role) $root | trim | nindent 12 }}
            {{- include "tern.flags" (mergeOverwrite (deepCopy $root.Values.flags) (deepCopy $set.flags)) | trim | nindent 12 }}
          env:
            - name: POD_NAME
              valueFrom:
                fieldRef:
                  fieldPath: metadata.name
            - name: POD_IP
              valueFrom:
                fieldRef:
                  fieldPath: status.podIP
            {{- if .postgres }}
            {{- include "tern.databaseEnv" $root | nindent 12 }}
            {{- end }}
            {{- with include (printf "tern.%s.env" $role) $root | trim }}
            {{- . | nindent 12 }}
            {{- end }}
          ports:
            - name: internal
              containerPort: 7070
            - name: admin
              containerPort: 7071
            {{- include (printf "tern.%s.ports" $role) $root | trim | nindent 12 }}
          # /healthz answers while the process lives, even if Postgres or etcd is away, since a restart would mend
          # neither.
          livenessProbe:
            httpGet:
              path: /healthz
              port: admin
            periodSeconds: 10
            failureThreshold: 6
          # A pod is ready when its node is in the map and not draining.
          readinessProbe:
            httpGet:
              path: /readyz
              port: admin
            periodSeconds: 2
            failureThreshold: 2
          lifecycle:
            preStop:
              sleep:
                seconds: {{ $root.Values.preStopSeconds }}
          resources:
            {{- toYaml $set.resources | nindent 12 }}
          securityContext:
            {{- include "tern.containerSecurity" $root | nindent 12 }}
          {{- with printf "%s\n%s" (include (printf "tern.%s.mounts" $role) $root) (include "tern.internalTls.mounts" $root) | trim }}
          volumeMounts:
            {{- . | nindent 12 }}
          {{- end }}
      {{- with printf "%s\n%s" (include (printf "tern.%s.volumes" $role) $root) (include "tern.internalTls.volumes" $root) | trim }}
      volumes:
        {{- . | nindent 8 }}
      {{- end }}
---
# Nodes find each other in etcd's map by their pods' addresses. This Service gives them names, for people and for
# StatefulSets.
apiVersion: v1
kind: Service
metadata:
  name: {{ $name }}{{ if eq $role "gateway" }}-internal{{ end }}
  labels:
    {{- include "tern.labels" $of | nindent 4 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "tern.selector" $of | nindent 4 }}
  ports:
    - name: internal
      port: 7070
      targetPort: internal
      appProtocol: {{ ternary "https" "kubernetes.io/h2c" $root.Values.internalTls.enabled }}
    - name: admin
      port: 7071
      targetPort: admin
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $name }}
  labels:
    {{- include "tern.labels" $of | nindent 4 }}
spec:
  maxUnavailable: {{ $set.maxUnavailable }}
  # A pod that does not work anyway must not hold up the drain of its machine.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "tern.selector" $of | nindent 6 }}
{{- if $set.autoscaling.enabled }}
{{- $metrics := include (printf "tern.%s.metrics" $role) $root | trim }}
{{- if not (or $metrics $set.autoscaling.cpu) }}
{{- fail (printf "%s.autoscaling: by what? Set cpu, or a metric of the role" $role) }}
{{- end }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels:
    {{- include "tern.labels" $of | nindent 4 }}
spec:
  scaleTargetRef:
    apiVersion: apps/v1
    kind: {{ .kind }}
    name: {{ $name }}
  minReplicas: {{ $set.autoscaling.minReplicas }}
  maxReplicas: {{ $set.autoscaling.maxReplicas }}
  behavior:
    # Removing a pod moves slots or streams, so pods are removed one at a time, and not for a short lull.
    scaleDown:
      stabilizationWindowSeconds: 900
      policies:
        - type: Pods
          value: 1
          periodSeconds: 300
  metrics:
    {{- if $set.autoscaling.cpu }}
    - type: Resource
      resource:
        name: cpu
        target:
          type: Utilization
          averageUtilization: {{ $set.autoscaling.cpu }}
    {{- end }}
    {{- with $metrics }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end -}}

{{- /* Every object of the manifests that `kubectl apply -k` uses, with the values put in. */ -}}
{{- define "matriarch.objects" }}
{{- $globs := list "base/*.yaml" }}
{{- $globs = append $globs (ternary "etcd/*.yaml" "external-etcd/network.yaml" .Values.etcd.enabled) }}
{{- if .Values.monitoring.enabled }}{{ $globs = append $globs "monitoring/*.yaml" }}{{ end }}
{{- range $glob := $globs }}
{{- range $path, $_ := $.Files.Glob (printf "manifests/%s" $glob) }}
{{- range $text := regexSplit "(?m)^---$" ($.Files.Get $path) -1 }}
{{- $object := fromYaml $text }}
{{- $name := $object.metadata.name }}
{{- $wanted := true }}
{{- if eq $object.kind "StorageClass" }}
  {{- $wanted = $.Values.storageClass.create }}
  {{- $_ := set $object "provisioner" $.Values.storageClass.provisioner }}
{{- else if eq $object.kind "StatefulSet" }}
  {{- include (printf "matriarch.%s" $name) (dict "set" $object "root" $) }}
{{- else if eq $object.kind "Role" }}
  {{- if $.Values.readinessGate.enabled }}
    {{- $_ := set $object "rules" (append $object.rules (include "matriarch.gateRule" $object | fromYaml)) }}
  {{- end }}
{{- else if and (eq $object.kind "Service") (hasPrefix "etcd-" $name) }}
  {{- $wanted = lt (trimPrefix "etcd-" $name | int) (int $.Values.etcd.replicas) }}
{{- else if eq $name "pg-external-etcd" }}
  {{- $to := list }}
  {{- range $.Values.etcd.networks }}{{ $to = append $to (dict "ipBlock" (dict "cidr" .)) }}{{ end }}
  {{- $_ := set (first $object.spec.egress) "to" $to }}
{{- end }}
{{- if $wanted }}
---
{{ toYaml $object }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: pg-settings
data:
  {{- include "matriarch.settings" . | nindent 2 }}
{{- if .Values.monitoring.enabled }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: pg-dashboard
  labels: {grafana_dashboard: "1"}
data:
  matriarch.json: |
    {{- .Files.Get "manifests/monitoring/matriarch.json" | nindent 4 }}
{{- end }}
{{- end }}

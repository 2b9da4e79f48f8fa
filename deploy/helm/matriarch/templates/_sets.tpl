{{- /* These change the StatefulSet `set` in place, and print nothing. */ -}}

{{- define "matriarch.pg" }}
{{- $values := .root.Values }}
{{- include "matriarch.size" (dict "set" .set "values" $values "of" $values) }}
{{- $hosts := $values.etcd.hosts }}
{{- if $values.etcd.enabled }}
  {{- $hosts = list }}
  {{- range until (int $values.etcd.replicas) }}{{ $hosts = append $hosts (printf "etcd-%d:2379" .) }}{{ end }}
{{- end }}
{{- $template := .set.spec.template }}
{{- include "matriarch.env" (dict "template" $template "name" "MATRIARCH_ETCD3_HOSTS" "value" (join "," $hosts)) }}
{{- range $template.spec.volumes }}
  {{- if eq .name "shm" }}{{ $_ := set .emptyDir "sizeLimit" $values.sharedMemory }}{{ end }}
{{- end }}
{{- if $values.readinessGate.enabled }}
  {{- $gate := include "matriarch.gate" .root | fromYaml }}
  {{- $_ := set $template.spec "readinessGates" (list (dict "conditionType" $gate.kubernetes.readiness_gate)) }}
{{- end }}
{{- /* A change of the settings is a rolling update. */ -}}
{{- $_ := set $template.metadata.annotations "matriarch.io/settings" (include "matriarch.settings" .root | sha256sum) }}
{{- end }}

{{- define "matriarch.etcd" }}
{{- $values := .root.Values }}
{{- include "matriarch.size" (dict "set" .set "values" $values.etcd "of" $values) }}
{{- $peers := list }}
{{- range until (int $values.etcd.replicas) }}
  {{- $peers = append $peers (printf "etcd-%d=https://etcd-%d.etcd:2380" . .) }}
{{- end }}
{{- include "matriarch.env" (dict "template" .set.spec.template "name" "ETCD_INITIAL_CLUSTER" "value" (join "," $peers)) }}
{{- end }}

{{- /* `values`: number, image, resources and size of these members; `of`: what is the same for all. */ -}}
{{- define "matriarch.size" }}
{{- $_ := set .set.spec "replicas" .values.replicas }}
{{- $pod := .set.spec.template.spec }}
{{- if not .of.oneMemberPerMachine }}{{ $_ := unset $pod "affinity" }}{{ end }}
{{- $container := first $pod.containers }}
{{- $_ := set $container "image" (printf "%s:%s" .values.image.repository .values.image.tag) }}
{{- $_ := set $container "resources" .values.resources }}
{{- $claim := (first .set.spec.volumeClaimTemplates).spec }}
{{- $_ := set $claim "accessModes" .of.storage.accessModes }}
{{- $_ := set $claim.resources.requests "storage" .values.storage.size }}
{{- $_ := unset $claim "storageClassName" }}
{{- with .of.storage.className }}{{ $_ := set $claim "storageClassName" . }}{{ end }}
{{- end }}

{{- define "matriarch.env" }}
{{- $given := . }}
{{- range (first .template.spec.containers).env }}
  {{- if eq .name $given.name }}{{ $_ := set . "value" $given.value }}{{ end }}
{{- end }}
{{- end }}

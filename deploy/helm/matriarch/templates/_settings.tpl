{{- /* The files of settings: the members merge them in the order of their names. */ -}}
{{- define "matriarch.settings" -}}
10-matriarch.yml: |
  {{- .Files.Get "manifests/base/10-matriarch.yml" | nindent 2 }}
20-size.yml: |
  {{- toYaml .Values.settings | nindent 2 }}
{{- if .Values.readinessGate.enabled }}
40-readiness-gate.yml: |
  {{- include "matriarch.gate" . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "matriarch.gate" -}}
{{ .Files.Get "manifests/readiness-gate/40-readiness-gate.yml" }}
{{- end }}

{{- /* For the Role `.`: the members write the status of the pods that it names. */ -}}
{{- define "matriarch.gateRule" -}}
apiGroups: [""]
resources: [pods/status]
resourceNames: {{ (index .rules 1).resourceNames | toJson }}
verbs: [patch]
{{- end }}

{{- define "portreeve.name" -}}
{{- if contains "portreeve" .Release.Name }}{{ .Release.Name | trunc 48 | trimSuffix "-" }}{{ else }}{{ printf "%s-portreeve" .Release.Name | trunc 48 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "portreeve.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Which Pods are ours: the controllers find the proxies by these. Arguments: root, component. */}}
{{- define "portreeve.selector" -}}
app.kubernetes.io/name: portreeve
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "portreeve.labels" -}}
{{ include "portreeve.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* The environment variable by which Kubernetes tells Pods where the controllers' Service is. */}}
{{- define "portreeve.serviceVariable" -}}
{{ printf "%s-controller" (include "portreeve.name" .) | upper | replace "-" "_" | replace "." "_" }}_SERVICE_HOST
{{- end }}

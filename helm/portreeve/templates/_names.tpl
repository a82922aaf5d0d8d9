{{/* A Service's name has no dots and begins with a letter; a release's need not. */}}
{{- define "portreeve.name" -}}
{{- $name := regexReplaceAll "^[0-9]" (.Release.Name | replace "." "-") "portreeve-${0}" -}}
{{- if contains "portreeve" $name }}{{ $name | trunc 48 | trimSuffix "-" }}{{ else }}{{ printf "%s-portreeve" $name | trunc 48 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "portreeve.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Which Pods are ours: the controllers find the proxies by these. Arguments: root, component. */}}
{{- define "portreeve.selector" -}}
app.kubernetes.io/name: portreeve
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "portreeve.labels" -}}
{{ include "portreeve.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The environment variable by which Kubernetes tells Pods where the controllers' Service is. */}}
{{- define "portreeve.serviceVariable" -}}
{{ printf "%s-controller" (include "portreeve.name" .) | upper | replace "-" "_" }}_SERVICE_HOST
{{- end }}

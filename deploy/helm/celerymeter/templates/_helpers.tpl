{{/* Name of the release in names of objects; a release may have dots in its name, a service may not. */}}
{{- define "celerymeter.base" -}}
{{ .Values.fullnameOverride | default .Release.Name | replace "." "-" }}
{{- end }}

{{/* Name of a component, the exporter or the control API of one cluster: (dict "root" $ "component" "exporter" "cluster" .)
Of a long one the release's part is cut: a StatefulSet may have 52 characters, and the rest tells components apart. */}}
{{- define "celerymeter.fullname" -}}
{{- $rest := list .component .cluster.name | compact | join "-" -}}
{{- $base := include "celerymeter.base" .root | trunc (sub 51 (len $rest) | int) | trimSuffix "-" -}}
{{ printf "%s-%s" $base $rest }}
{{- end }}

{{/* Labels that select the pods of a component; they can never change. */}}
{{- define "celerymeter.selector" -}}
app.kubernetes.io/name: celerymeter
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .cluster.name }}
celerymeter/cluster: {{ . }}
{{- end }}
{{- end }}

{{/* Labels of every object of a component. */}}
{{- define "celerymeter.labels" -}}
{{ include "celerymeter.selector" . }}
{{ include "celerymeter.common" .root }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "celerymeter.common" -}}
app.kubernetes.io/part-of: celerymeter
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Not empty if a component runs for one cluster; takes what celerymeter.fullname takes. */}}
{{- define "celerymeter.runs" -}}
{{- if and (index .root.Values .component).enabled (or (eq .component "exporter") (ne (toString .cluster.control) "false")) }}yes{{ end }}
{{- end }}

{{- define "celerymeter.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What each pod has besides its containers and volumes; `values` are those of its component. */}}
{{- define "celerymeter.pod" -}}
serviceAccountName: {{ include "celerymeter.fullname" . }}
automountServiceAccountToken: false
enableServiceLinks: false # they are variables called CELERYMETER_…, and those are settings
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "celerymeter.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Ports of a list of numbers, as a NetworkPolicy wants them. */}}
{{- define "celerymeter.ports" -}}
{{- $ports := list }}
{{- range . }}{{ $ports = append $ports (dict "port" (int .)) }}{{ end -}}
{{ $ports | toJson }}
{{- end }}

{{/* The label `owner` of alerts, as a template that Prometheus fills in; made of rules.owners. */}}
{{- define "celerymeter.owner" -}}
{{- $else := "" }}
{{- range .owners }}
{{- $matches := list }}
{{- with .queues }}{{ $matches = append $matches (include "celerymeter.matches" (list "queue_name" .)) }}{{ end }}
{{- with .tasks }}{{ $matches = append $matches (include "celerymeter.matches" (list "name" .)) }}{{ end }}
{{- $condition := printf "or %s" (join " " $matches) }}
{{- with .clusters }}{{ $condition = printf "and %s (%s)" (include "celerymeter.matches" (list "cluster" .)) $condition }}{{ end }}
{{- printf "{{ %sif %s }}%s" $else $condition .owner }}
{{- $else = "else " }}
{{- end }}
{{- $default := .default | default "" }}
{{- if $else }}{{ printf "{{ else }}%s{{ end }}" $default }}{{ else }}{{ $default }}{{ end }}
{{- end }}

{{/* Condition of such a template: whether a label matches one of some patterns, in which * stands for anything. */}}
{{- define "celerymeter.matches" -}}
{{- $expressions := list }}
{{- range index . 1 }}
{{- $anything := eq (trimAll "*" .) "" }}
{{- $expressions = append $expressions ($anything | ternary "(?s:.+)" (regexQuoteMeta . | replace "\\*" "(?s:.*)")) }}
{{- end }}
{{- printf "(match %q $labels.%s)" (printf "^(?:%s)$" (join "|" $expressions)) (index . 0) }}
{{- end }}

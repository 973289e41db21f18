{{/* Name of a component, the exporter or the control API of one cluster: (dict "root" $ "component" "exporter" "cluster" .) */}}
{{- define "celerymeter.fullname" -}}
{{- $base := .root.Values.fullnameOverride | default .root.Release.Name -}}
{{- list $base .component .cluster.name | compact | join "-" | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that select the pods of a component; they can never change. */}}
{{- define "celerymeter.selector" -}}
app.kubernetes.io/name: celerymeter
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/instance: {{ list .root.Release.Name .cluster.name | compact | join "-" | trunc 63 | trimSuffix "-" }}
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

{{/* Fails with a sentence for what the schema cannot say. */}}
{{- define "celerymeter.check" -}}
{{- $names := list }}
{{- range .Values.clusters }}
{{- if and (gt (len $.Values.clusters) 1) (not .name) }}{{ fail "clusters: with several clusters each needs a name, which becomes the label `cluster` of its metrics" }}{{ end }}
{{- if has .name $names }}{{ fail (printf "clusters: two clusters are called %q; give each a name of its own" .name) }}{{ end }}
{{- $names = append $names .name }}
{{- end }}
{{- if and .Values.control.ingress.enabled (not .Values.control.ingress.host) }}{{ fail "control.ingress.host: an ingress needs the host name under which people reach the API" }}{{ end }}
{{- if and .Values.control.ingress.enabled (not .Values.control.ingress.tlsSecret) }}{{ fail "control.ingress.tlsSecret: an ingress needs a secret with a certificate, since tokens must not travel without TLS" }}{{ end }}
{{- end }}

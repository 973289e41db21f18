{{/* Fails unless a value matches: (list "its place" value "regex" "what it must be"). It never shows the value, which may
hold a password; messages of the schema do. */}}
{{- define "celerymeter.must" -}}
{{- if not (regexMatch (index . 2) (index . 1 | toString)) }}{{ fail (printf "%s: %s" (index . 0) (index . 3)) }}{{ end }}
{{- end }}

{{- define "celerymeter.mustBeKey" -}}
{{ include "celerymeter.must" (list (index . 0) (index . 1) "^[-._a-zA-Z0-9]{0,253}$" "must be a key of that secret, such as broker_url, not what it holds") }}
{{- end }}

{{- define "celerymeter.mustBeSecret" -}}
{{ include "celerymeter.must" (list (index . 0) (index . 1) "^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$" "must be the name of a secret that exists in the namespace, not what it holds") }}
{{- end }}

{{- define "celerymeter.mustBeOptions" -}}
{{- $place := index . 0 }}
{{- range $number, $option := index . 1 }}
{{- if regexMatch `(?is)^--(broker-url|result-backend-url|prometheus-header)\b[^-]|://[^/\s]*:[^/\s]*@|password"\s*:` (printf "%s " $option) }}
{{- fail (printf "%s[%d]: a secret must not be on a command line, which all who may see pods can read. The URLs belong into the secret of clusters[].broker; give others with extraEnv and valueFrom, or in a file of extraVolumes" $place $number) }}
{{- end }}
{{- include "celerymeter.must" (list (printf "%s[%d]" $place $number) $option `(?s)^--[a-z][-.a-z0-9]*(=.*)?$` "must be one option with its value, in the form --name=value") }}
{{- end }}
{{- end }}

{{/* Thresholds must be known, and have the labels that tell the defaults of one name apart. */}}
{{- define "celerymeter.mustBeThresholds" -}}
{{- $known := dict }}
{{- range (.Files.Get "files/prometheusrule.yaml" | fromYaml).spec.groups }}
{{- range .rules }}
{{- if hasSuffix ":limit" (.record | default "") }}{{ $_ := set $known .record (append (index $known .record | default list) (.labels | default dict)) }}{{ end }}
{{- end }}
{{- end }}
{{- range $number, $line := .Values.rules.thresholds }}
{{- $place := printf "rules.thresholds[%d]" $number }}
{{- $defaults := index $known $line.record }}
{{- if not $defaults }}{{ fail (printf "%s.record: there is no threshold %s; there are %s" $place $line.record (keys $known | sortAlpha | join ", ")) }}{{ end }}
{{- $labels := omit ($line.labels | default dict) "cluster" "queue_name" "name" "schedule" }}
{{- if not (has $labels $defaults) }}{{ fail (printf "%s.labels: besides cluster, queue_name, name and schedule, those of %s are %s" $place $line.record (uniq $defaults | toJson | replace "," ", ")) }}{{ end }}
{{- end }}
{{- end }}

{{/* Fails with a sentence for what the schema cannot say, or would show. */}}
{{- define "celerymeter.check" -}}
{{- include "celerymeter.must" (list "fullnameOverride" (include "celerymeter.base" .) "^[a-z]" (printf "names of services begin with a letter, and %s does not" (include "celerymeter.base" .))) }}
{{- include "celerymeter.must" (list "image.repository" .Values.image.repository "^[^\\s:@]+(:[0-9]+/[^\\s:@]+)?$" "must be an image without a tag; image.tag is the place for it, also with a digest (0.1.0@sha256:…)") }}
{{- $names := list }}
{{- range $number, $cluster := .Values.clusters }}
{{- $place := printf "clusters[%d]" $number }}
{{- if and (gt (len $.Values.clusters) 1) (not .name) }}{{ fail "clusters: with several clusters each needs a name, which becomes the label `cluster` of its metrics" }}{{ end }}
{{- if has .name $names }}{{ fail (printf "clusters: two clusters are called %q; give each a name of its own" .name) }}{{ end }}
{{- $names = append $names .name }}
{{- include "celerymeter.mustBeSecret" (list (printf "%s.broker.secret" $place) .broker.secret) }}
{{- include "celerymeter.mustBeKey" (list (printf "%s.broker.key" $place) (.broker.key | default "")) }}
{{- include "celerymeter.mustBeKey" (list (printf "%s.resultBackendKey" $place) (.resultBackendKey | default "")) }}
{{- include "celerymeter.mustBeOptions" (list (printf "%s.exporterArgs" $place) (.exporterArgs | default list)) }}
{{- include "celerymeter.mustBeOptions" (list (printf "%s.controlArgs" $place) (.controlArgs | default list)) }}
{{- end }}
{{- include "celerymeter.mustBeOptions" (list "exporter.args" .Values.exporter.args) }}
{{- include "celerymeter.mustBeOptions" (list "control.args" .Values.control.args) }}
{{- include "celerymeter.mustBeSecret" (list "control.secret" .Values.control.secret) }}
{{- range $name := list "prometheusUrl" "alertmanagerUrl" "grafanaUrl" }}
{{- include "celerymeter.must" (list (printf "control.%s" $name) (index $.Values.control $name) (eq $name "prometheusUrl" | ternary `^https?://[^\s@]+$` `^(https?://[^\s@]+)?$`) "must be a URL such as http://prometheus.monitoring:9090, without user and password, which would be on the command line") }}
{{- end }}
{{- range $component := list "exporter" "control" }}
{{- range $number, $variable := (index $.Values $component).extraEnv }}
{{- if regexMatch `://[^/\s]*:[^/\s]*@` ($variable.value | default "") }}{{ fail (printf "%s.extraEnv[%d]: a URL with its password belongs into a secret, which valueFrom names" $component $number) }}{{ end }}
{{- end }}
{{- range $label, $_ := (index $.Values $component).podLabels }}
{{- if regexMatch "^(app\\.kubernetes\\.io/|helm\\.sh/|celerymeter/)" $label }}{{ fail (printf "%s.podLabels: the chart itself sets %s; choose another label" $component $label) }}{{ end }}
{{- end }}
{{- end }}
{{- if and .Values.control.ingress.enabled (not .Values.control.ingress.host) }}{{ fail "control.ingress.host: an ingress needs the host name under which people reach the API" }}{{ end }}
{{- if and .Values.control.ingress.enabled (not .Values.control.ingress.tlsSecret) }}{{ fail "control.ingress.tlsSecret: an ingress needs a secret with a certificate, since tokens must not travel without TLS" }}{{ end }}
{{- include "celerymeter.mustBeThresholds" . }}
{{- end }}

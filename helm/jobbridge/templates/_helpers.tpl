{{/* At most 50 characters: Kubernetes adds its own endings and stops at 63. */}}
{{- define "jobbridge.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "jobbridge.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "jobbridge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "jobbridge.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "jobbridge.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "jobbridge.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "jobbridge.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The config file, after the checks that only the chart can make. */}}
{{- define "jobbridge.config" -}}
{{- if has .Values.config.control.host (list "127.0.0.1" "::1" "localhost") -}}
{{- fail (printf "config.control.host is %s, where no probe can reach it: use 0.0.0.0 or ::" .Values.config.control.host) -}}
{{- end -}}
{{- $drain := (.Values.config.supervision).drain_timeout_s | default 0 -}}
{{- if le (float64 .Values.terminationGracePeriodSeconds) (float64 $drain) -}}
{{- fail (printf "terminationGracePeriodSeconds (%v) must be longer than config.supervision.drain_timeout_s (%v)" .Values.terminationGracePeriodSeconds $drain) -}}
{{- end -}}
{{- toYaml .Values.config -}}
{{- end -}}

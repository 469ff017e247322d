{{/*
The name of everything that belongs to one release. A Service's has at most 63
characters, and suffixes follow; what is cut off a longer one is told apart by a
sum, since two releases may differ in their last letters alone.
*/}}
{{- define "paythread.name" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $chart := .Values.nameOverride | default .Chart.Name -}}
{{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) | replace "." "-" -}}
{{- end -}}
{{- if gt (len $name) 50 -}}
{{- $name = printf "%s-%s" (trunc 43 $name | trimSuffix "-") (sha256sum $name | trunc 6) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- fail (printf "%s cannot be the name of a Service, which begins with a letter: set fullnameOverride" $name) -}}
{{- end -}}
{{- $name -}}
{{- end }}

{{/* What selects the gateway's pods. It never changes: a Deployment's selector cannot. */}}
{{- define "paythread.selector" -}}
app.kubernetes.io/name: paythread
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: gateway
{{- end }}

{{/* Labels of everything that is no pod. */}}
{{- define "paythread.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: paythread
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels of the gateway's pods. */}}
{{- define "paythread.podLabels" -}}
{{- include "paythread.selector" . }}
{{- with merge (.Values.podLabels | default dict | deepCopy) (.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* What selects a pod that helps: list "preflight" or "smoke-test", then the root. */}}
{{- define "paythread.helperSelector" -}}
{{- $component := index . 0 }}{{ $root := index . 1 -}}
app.kubernetes.io/name: paythread
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ $component }}
{{- end }}

{{/* Labels of such a pod, from the same list. */}}
{{- define "paythread.helperLabels" -}}
{{- $root := index . 1 -}}
{{- include "paythread.helperSelector" . }}
{{- with merge ($root.Values.preflight.podLabels | default dict | deepCopy) ($root.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Where a pod that helps may run: where the gateway may, but for what is said of other pods. */}}
{{- define "paythread.helperPlace" -}}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with (.Values.affinity | default dict).nodeAffinity }}
affinity:
  nodeAffinity: {{ toYaml . | nindent 4 }}
{{- end }}
{{- end }}

{{- define "paythread.image" -}}
{{- $repository := required "image.repository is missing: say where the image lies that \"make image\" built and you pushed" .Values.image.repository -}}
{{- if .Values.image.digest }}{{ $repository }}@{{ .Values.image.digest }}
{{- else }}{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "paythread.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "paythread.name" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "paythread.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Environment of the gateway and of what checks it. */}}
{{- define "paythread.env" -}}
{{- range .Values.secretEnv }}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ required (printf "secretEnv: %s names no existingSecret" .name) .existingSecret }}
      key: {{ required (printf "secretEnv: %s names no key of %s" .name .existingSecret) .key }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Mounts and volumes: the configuration, the link keys, the secrets. */}}
{{- define "paythread.mounts" -}}
- name: config
  mountPath: /etc/paythread/config
  readOnly: true
- name: keys
  mountPath: /etc/paythread/keys
  readOnly: true
{{- range .Values.secretFiles }}
- name: secret-{{ .name }}
  mountPath: /etc/paythread/secrets/{{ .name }}
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* list of the ConfigMap's name and the root */}}
{{- define "paythread.volumes" -}}
{{- $config := index . 0 }}{{ $root := index . 1 -}}
- name: config
  configMap:
    name: {{ $config }}
- name: keys
  secret:
    secretName: {{ required "linkKeys.existingSecret is missing: make link keys with \"paythread keys new --dir keys\", then a Secret of them with \"kubectl create secret generic NAME --from-file=keys\"" $root.Values.linkKeys.existingSecret }}
    defaultMode: 0440
{{- range $root.Values.secretFiles }}
- name: secret-{{ .name }}
  secret:
    secretName: {{ required (printf "secretFiles: %s names no existingSecret" .name) .existingSecret }}
    defaultMode: 0440
{{- end }}
{{- with $root.Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "paythread.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where the gateway may call: names, Redis, and whatever it says over TLS. */}}
{{- define "paythread.egress" -}}
# Names.
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  {{- with .Values.networkPolicy.dnsPeers }}
  to: {{ toYaml . | nindent 4 }}
  {{- end }}
# Redis, and its Sentinels.
- ports:
    {{- range .Values.networkPolicy.redisPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .Values.networkPolicy.redisPeers }}
  to: {{ toYaml . | nindent 4 }}
  {{- end }}
# The messaging companies, CyberSource, and the merchants' own systems: https,
# and outside the cluster.
- ports:
    - {port: 443, protocol: TCP}
  to:
    {{- range .Values.networkPolicy.internet }}
    - ipBlock: {{ toYaml . | nindent 8 }}
    {{- end }}
{{- with .Values.networkPolicy.extraEgress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Hosts of the Ingress, as JSON: those that are named, else those of the merchants' public URLs. */}}
{{- define "paythread.hosts" -}}
{{- $hosts := .Values.ingress.hosts | default list }}
{{- if not $hosts }}
{{- range .Values.config.merchants }}
{{- $hosts = append $hosts (regexReplaceAll ":[0-9]+$" (get (urlParse (.public_url | default "")) "host") "") }}
{{- end }}
{{- end }}
{{- $hosts | uniq | compact | toJson }}
{{- end }}

{{/*
The configuration file, and what is refused in it. Whatever else may be wrong
with it, the preflight Job finds with the gateway's own eyes.
*/}}

{{- define "paythread.config" -}}
{{- include "paythread.checkConfig" . -}}
{{- $config := deepCopy .Values.config -}}
{{- $_ := set $config "listen" ":8080" -}}
{{- $_ := set $config "admin_listen" ":9090" -}}
{{- $_ := set $config "link_keys" (dict "dir" "/etc/paythread/keys") -}}
# Made by the chart from values.config.
{{ toYaml $config }}
{{- end }}

{{- define "paythread.checkConfig" -}}
{{- if not (kindIs "map" .Values.config) }}{{ fail "config is missing: docs/deploy-kubernetes.md has one to begin with" }}{{ end }}
{{- range list "listen" "admin_listen" "link_keys" }}
{{- if hasKey $.Values.config . }}{{ fail (printf "config.%s is the chart's to set: take it out" .) }}{{ end }}
{{- end }}
{{- if not .Values.config.merchants }}{{ fail "config.merchants is missing: docs/deploy-kubernetes.md has one to begin with" }}{{ end }}
{{- $files := list }}
{{- range .Values.secretFiles }}
{{- if has .name $files }}{{ fail (printf "secretFiles: %s is there twice, and one folder has one Secret" .name) }}{{ end }}
{{- $files = append $files .name }}
{{- end }}
{{- include "paythread.checkEnv" . }}
{{- include "paythread.checkLabels" . }}
{{- include "paythread.walk" (dict "at" "config" "key" "" "value" .Values.config "files" $files) }}
{{- include "paythread.needRedis" . }}
{{- range $i, $m := .Values.config.merchants }}
{{- $at := printf "config.merchants[%d]" $i }}
{{- $of := printf "PAYTHREAD_MERCHANTS_%v" ($m.id | default "") }}
{{- range $j, $k := $m.api_keys }}
{{- include "paythread.need" (list $ (printf "%s.api_keys[%d]" $at $j) $k "secret" (printf "%s_API_KEYS_%v" $of ($k.name | default ""))) }}
{{- end }}
{{- range $j, $c := $m.callbacks }}
{{- include "paythread.need" (list $ (printf "%s.callbacks[%d]" $at $j) $c "secret" (printf "%s_CALLBACKS_%v" $of ($c.id | default ""))) }}
{{- end }}
{{- range $j, $s := $m.senders }}
{{- range get (include "paythread.needed" $ | fromYaml) ($s.provider | default "" | toString) }}
{{- include "paythread.need" (list $ (printf "%s.senders[%d]" $at $j) $s . (printf "%s_SENDERS_%v" $of ($s.id | default ""))) }}
{{- end }}
{{- end }}
{{- with $m.platform }}
{{- range get (include "paythread.needed" $ | fromYaml) (.name | default "" | toString) }}
{{- include "paythread.need" (list $ (printf "%s.platform" $at) $m.platform . (printf "%s_PLATFORM" $of)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* "true" for a key whose value is a secret, and not, as streams_per_key, a number of something for each. */}}
{{- define "paythread.isSecret" -}}
{{- if regexMatch "(^|_)(secret|password|token|key|keys)(_previous)?$" (. | replace "_per_" "-") }}true{{ end }}
{{- end }}

{{/* Labels by which the chart's objects know each other are nobody else's to set. */}}
{{- define "paythread.checkLabels" -}}
{{- range $at, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "preflight.podLabels" .Values.preflight.podLabels "serviceMonitor.labels" .Values.serviceMonitor.labels "prometheusRule.labels" .Values.prometheusRule.labels "dashboard.labels" .Values.dashboard.labels }}
{{- range $key, $_ := $labels }}
{{- if regexMatch "^(app[.]kubernetes[.]io/(name|instance|component|version|managed-by)|helm[.]sh/chart)$" $key }}{{ fail (printf "%s: %s is the chart's to set: take it out" $at $key) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Variables: each once, none that the chart has to know of, and no secret where a Deployment shows it. */}}
{{- define "paythread.checkEnv" -}}
{{- $seen := list }}
{{- range concat (.Values.secretEnv | default list) (.Values.extraEnv | default list) }}
{{- if has .name $seen }}{{ fail (printf "the variable %s is there twice in secretEnv and extraEnv" .name) }}{{ end }}
{{- $seen = append $seen .name }}
{{- if regexMatch "^PAYTHREAD_(LISTEN|ADMIN_LISTEN|LINK_KEYS_.*)$" .name }}{{ fail (printf "the variable %s is the chart's to set: take it out" .name) }}{{ end }}
{{- if eq .name "PAYTHREAD_DRAIN" }}{{ fail "say config.drain in the place of the variable PAYTHREAD_DRAIN: terminationGracePeriodSeconds is compared with it" }}{{ end }}
{{- end }}
{{- range .Values.extraEnv }}
{{- $own := hasPrefix "PAYTHREAD_" .name }}
{{- if and .value (or (and $own (include "paythread.isSecret" (lower .name))) (regexMatch "://[^/]*@" (toString .value))) }}
{{- fail (printf "extraEnv: %s is a secret, and whoever may look at a Deployment reads it there: put it into a Secret of the cluster, and name that in secretEnv" .name) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Seconds, without what is less than one, that the gateway goes on serving after it was asked to stop. */}}
{{- define "paythread.drainSeconds" -}}
{{- $drain := "5s" }}{{/* the gateway's default */}}
{{- if hasKey .Values.config "drain" }}{{ $drain = toString .Values.config.drain }}{{ end }}
{{- if not (regexMatch "^(0|([0-9]+([.][0-9]+)?(ms|s|m|h))+)$" $drain) }}{{ fail (printf "config.drain is %q, want a duration such as 5s or 1m30s" $drain) }}{{ end }}
{{- $epoch := toDate "2006-01-02 15:04:05" "2000-01-01 00:00:00" -}}
{{- sub (mustDateModify $drain $epoch | unixEpoch) (unixEpoch $epoch) }}
{{- end }}

{{/* The secrets that a provider or a platform cannot be without. */}}
{{- define "paythread.needed" -}}
meta: [access_token, app_secret, verify_token]
twilio: [auth_token]
clickatell: [api_key]
unified_checkout: [shared_secret]
{{- end }}

{{/* list of root, path, map, key and the variable's beginning: fails if the secret is neither in a file nor in a variable. */}}
{{- define "paythread.need" -}}
{{- $root := index . 0 }}{{ $at := index . 1 }}{{ $in := index . 2 }}{{ $key := index . 3 -}}
{{- $variable := printf "%s_%s" (index . 4) $key | upper | replace "-" "_" | replace "." "_" -}}
{{- $found := get $in (printf "%s_file" $key) -}}
{{- range $root.Values.secretEnv }}
{{- if or (eq .name $variable) (eq .name (printf "%s_FILE" $variable)) }}{{ $found = true }}{{ end }}
{{- end }}
{{- if not $found }}
{{- fail (printf "%s.%s_file is missing: put the secret into a Secret of the cluster, name it in secretFiles, and say here /etc/paythread/secrets/NAME/KEY; or give the variable %s in secretEnv" $at $key $variable) }}
{{- end }}
{{- end }}

{{- define "paythread.needRedis" -}}
{{- $redis := .Values.config.redis | default dict }}
{{- $found := or $redis.url $redis.url_file $redis.addresses }}
{{- range .Values.secretEnv }}
{{- if has .name (list "PAYTHREAD_REDIS_URL" "PAYTHREAD_REDIS_URL_FILE" "PAYTHREAD_REDIS_ADDRESSES") }}{{ $found = true }}{{ end }}
{{- end }}
{{- if not $found }}{{ fail "config.redis is missing: give addresses, url (without a password) or url_file" }}{{ end }}
{{- if .Values.networkPolicy.enabled }}
{{- $open := list }}
{{- range .Values.networkPolicy.redisPorts }}{{ $open = append $open (toString .) }}{{ end }}
{{- range concat ($redis.addresses | default list) (compact (list $redis.url)) }}
{{- $port := regexReplaceAll "^.*:([0-9]+)(/.*)?$" (toString .) "${1}" }}
{{- if and (regexMatch "^[0-9]+$" $port) (not (has $port $open)) }}{{ fail (printf "config.redis names %s, and networkPolicy.redisPorts is %s: its port has to be there, or nobody gets through" . (join ", " $open)) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}

{{/*
Goes through the configuration and refuses what must not stand in a ConfigMap:
a dict of at (the path), key, value and files (the names of secretFiles).
*/}}
{{- define "paythread.walk" -}}
{{- $files := .files }}
{{- if kindIs "map" .value }}
{{- $at := .at }}
{{- range $key, $value := .value }}
{{- include "paythread.walk" (dict "at" (printf "%s.%s" $at $key) "key" $key "value" $value "files" $files) }}
{{- end }}
{{- else if kindIs "slice" .value }}
{{- $at := .at }}
{{- $key := .key }}
{{- range $i, $value := .value }}
{{- include "paythread.walk" (dict "at" (printf "%s[%d]" $at $i) "key" $key "value" $value "files" $files) }}
{{- end }}
{{- else if kindIs "invalid" .value }}
{{- else }}
{{- if and (include "paythread.isSecret" .key) (ne (toString .value) "") }}
{{- fail (printf "%s is a secret, and this file is readable to many: put it into a Secret of the cluster, name that in secretFiles, and say %s_file: /etc/paythread/secrets/NAME/KEY" .at .at) }}
{{- end }}
{{- if regexMatch "://[^/]*@" (toString .value) }}
{{- fail (printf "%s holds a password: put the whole into a Secret of the cluster, name that in secretFiles, and say %s_file: /etc/paythread/secrets/NAME/KEY" .at .at) }}
{{- end }}
{{- if and (kindIs "float64" .value) (ge (float64 .value) 1000000.0) }}
{{- fail (printf "%s is a long number, which YAML would round: put it into quotes" .at) }}
{{- end }}
{{- if and (kindIs "bool" .value) (has .key (list "country" "locale" "id" "name")) }}
{{- fail (printf "%s is a word that YAML takes for %v, as it does with NO, Norway's code: put it into quotes" .at .value) }}
{{- end }}
{{- if hasSuffix "_file" .key }}
{{- $path := toString .value }}
{{- if not (hasPrefix "/" $path) }}{{ fail (printf "%s is %q, want a path from the root: secrets lie in /etc/paythread/secrets/NAME" .at $path) }}{{ end }}
{{- if hasPrefix "/etc/paythread/" $path }}
{{- $name := regexReplaceAll "^/etc/paythread/secrets/([^/]+)/[^/]+$" $path "${1}" }}
{{- if not (has $name $files) }}{{ fail (printf "%s is %q, and secretFiles mounts nothing there: want /etc/paythread/secrets/NAME/KEY with one of its names" .at $path) }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "tenantd.name" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "tenantd.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "tenantd.labels" -}}
{{ include "tenantd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "tenantd.zipSecret" -}}
{{- .Values.single.zipSecret | default (printf "%s-zip" (include "tenantd.name" .)) -}}
{{- end -}}

{{- define "tenantd.secret" -}}
{{- .Values.single.secret | default (printf "%s-secrets" (include "tenantd.name" .)) -}}
{{- end -}}

{{- define "tenantd.tenantsSecret" -}}
{{- .Values.multi.tenantsSecret | default (printf "%s-tenants" (include "tenantd.name" .)) -}}
{{- end -}}

{{- define "tenantd.storeSecret" -}}
{{- .Values.cluster.storeSecret | default (printf "%s-store" (include "tenantd.name" .)) -}}
{{- end -}}

{{- define "tenantd.claim" -}}
{{- .Values.persistence.existingClaim | default (printf "%s-state" (include "tenantd.name" .)) -}}
{{- end -}}

{{- define "tenantd.serviceType" -}}
{{- if .Values.service.type -}}
{{- .Values.service.type -}}
{{- else if .Values.ingress.enabled -}}
ClusterIP
{{- else if or (eq .Values.mode "single") .Values.acme.enabled -}}
LoadBalancer
{{- else -}}
ClusterIP
{{- end -}}
{{- end -}}

{{/* The settings of the mode multi: those of the chart, and those of the values above them. */}}
{{- define "tenantd.settings" -}}
{{- $name := include "tenantd.name" . -}}
{{- $inner := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .Release.Namespace) -}}
{{- $settings := dict "host" (list .Values.multi.host) "public_base" (printf "https://%s" .Values.multi.host) -}}
{{- if .Values.acme.enabled -}}
{{- $_ := set $settings "tls" "acme" -}}
{{- $_ := set $settings "accept_tos" true -}}
{{- $_ := set $settings "acme_contact" (list .Values.acme.contact) -}}
{{- if .Values.acme.directory -}}
{{- $_ := set $settings "acme_directory" (list .Values.acme.directory) -}}
{{- end -}}
{{- else -}}
{{- $_ := set $settings "tls" "off" -}}
{{- $_ := set $settings "extra_host" $inner -}}
{{- end -}}
{{- if .Values.keyVault.enabled -}}
{{- $_ := set $settings "secret_root" (list "/mnt/vault") -}}
{{- end -}}
{{- if .Values.cluster.enabled -}}
{{- $_ := set $settings "store_file" "/run/tenantd-store/address" -}}
{{- end -}}
{{- if .Values.multi.labelledSecrets -}}
{{- $_ := set $settings "tenants_from" "kubernetes" -}}
{{- end -}}
{{- toYaml (mergeOverwrite $settings .Values.multi.settings) -}}
{{- end -}}

{{/* What cannot work is refused here, before anything is installed. */}}
{{- define "tenantd.validate" -}}
{{- $isSingle := eq .Values.mode "single" -}}
{{- if and $isSingle .Values.acme.enabled -}}
{{- fail "acme.enabled is for mode: multi. In the mode single, terminate TLS at an ingress or load balancer." -}}
{{- end -}}
{{- if and (not $isSingle) .Values.oauth.enabled -}}
{{- fail "oauth is for mode: single. In the mode multi the login is in the tenants' files (oauth_enabled: true)." -}}
{{- end -}}
{{- if and .Values.oauth.enabled (not (and .Values.single.publicUrl .Values.oauth.microsoftClientId .Values.oauth.microsoftTenantId)) -}}
{{- fail "oauth.enabled needs single.publicUrl, oauth.microsoftClientId and oauth.microsoftTenantId." -}}
{{- end -}}
{{- if and .Values.acme.enabled (not (and .Values.acme.acceptTos .Values.acme.contact)) -}}
{{- fail "acme.enabled needs acme.contact, and acme.acceptTos: true once you have read the terms of the authority." -}}
{{- end -}}
{{- if and .Values.acme.enabled .Values.ingress.enabled -}}
{{- fail "acme.enabled and ingress.enabled exclude one another: either the gateway terminates TLS, or the ingress." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.host) -}}
{{- fail "ingress.enabled needs ingress.host." -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not $isSingle) (not .Values.ingress.prefixes) -}}
{{- fail "ingress.enabled in the mode multi needs ingress.prefixes: the tenants that are reachable from outside." -}}
{{- end -}}
{{- if .Values.keyVault.enabled -}}
{{- if not (and .Values.keyVault.name .Values.keyVault.tenantId .Values.keyVault.clientId) -}}
{{- fail "keyVault.enabled needs keyVault.name, keyVault.tenantId and keyVault.clientId." -}}
{{- end -}}
{{- if and (not $isSingle) (not .Values.keyVault.objects) -}}
{{- fail "keyVault.enabled in the mode multi needs keyVault.objects." -}}
{{- end -}}
{{- end -}}
{{- if and $isSingle (or .Values.cluster.enabled .Values.multi.labelledSecrets) -}}
{{- fail "cluster.enabled and multi.labelledSecrets are for mode: multi." -}}
{{- end -}}
{{- if .Values.cluster.enabled -}}
{{- if lt (int .Values.replicas) 2 -}}
{{- fail "cluster.enabled is for replicas: 2 or more. One replica keeps logins on a claim, without a database." -}}
{{- end -}}
{{- if semverCompare "<1.30.0-0" .Capabilities.KubeVersion.Version -}}
{{- fail "cluster.enabled needs Kubernetes 1.30 or newer: its pods sleep before they end (lifecycle.preStop.sleep)." -}}
{{- end -}}
{{- end -}}
{{- if gt (int .Values.replicas) 1 -}}
{{- if and (not .Values.cluster.enabled) (or .Values.oauth.enabled (and (not $isSingle) .Values.multi.logins)) -}}
{{- fail "replicas > 1 with a login is not possible: replicas share no state, and a token of one is not valid at another. In the mode multi, cluster.enabled lets them share a database. Else use replicas: 1, or if no tenant has a login: multi.logins: false." -}}
{{- end -}}
{{- if and .Values.acme.enabled (not .Values.cluster.enabled) -}}
{{- fail "replicas > 1 with acme.enabled is not possible without cluster.enabled: certificates belong to one pod. Use replicas: 1, or terminate TLS at an ingress." -}}
{{- end -}}
{{- if .Values.persistence.enabled -}}
{{- fail "replicas > 1 needs persistence.enabled: false: only one pod can use the claim with the state." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The labels of an object, from its app.kubernetes.io/name. */}}
{{- define "gputopo.labels" -}}
{app.kubernetes.io/name: {{ . }}, app.kubernetes.io/part-of: gputopo}
{{- end }}

{{/* The image of both daemons. */}}
{{- define "gputopo.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* kube-scheduler's image; what distributions append to the version is no part of its tag. */}}
{{- define "gputopo.kubeSchedulerImage" -}}
{{- $image := .Values.scheduler.image -}}
{{ $image.repository }}:{{ $image.tag | default (regexFind "^v[0-9]+\\.[0-9]+\\.[0-9]+" .Capabilities.KubeVersion.Version) }}
{{- end }}

{{/* The --config file of the device plugin. */}}
{{- define "gputopo.devicePluginSettings" -}}
{{ merge (dict "resource" .Values.resource) .Values.devicePlugin.settings | toYaml }}
{{- end }}

{{/* The --config file of the extender. */}}
{{- define "gputopo.extenderSettings" -}}
{{ merge (dict "resource" .Values.resource) .Values.extender.settings | toYaml }}
{{- end }}

{{/* What every container does without. */}}
{{- define "gputopo.lockedDown" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The user of a pod that needs nothing of the host. */}}
{{- define "gputopo.nobody" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* kube-scheduler's configuration. */}}
{{- define "gputopo.kubeScheduler" -}}
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
{{- if eq .Values.scheduler.kind "default-scheduler" }}
clientConnection:
  kubeconfig: /etc/kubernetes/scheduler.conf
leaderElection:
  leaderElect: true
profiles:
  - schedulerName: default-scheduler
{{- else }}
leaderElection:
  leaderElect: true
  resourceName: gputopo-scheduler
  resourceNamespace: {{ .Release.Namespace }}
clientConnection:
  qps: 500
  burst: 1000
percentageOfNodesToScore: {{ .Values.scheduler.percentageOfNodesToScore }}
profiles:
  - schedulerName: {{ .Values.scheduler.name }}
{{- end }}
extenders:
  # Filter answers with the short list; a prioritize verb would cost a third of the throughput.
  - urlPrefix: http://127.0.0.1:8888
    filterVerb: filter
    bindVerb: bind
    httpTimeout: 5s
    nodeCacheCapable: true
    # Ignoring a failed bind would bind the pod without its set.
    ignorable: false
    managedResources:
      - {name: {{ .Values.resource }}, ignoredByScheduler: false}
{{- end }}

{{/* The token that extenders show each other; good for nothing else, and renewed by kubelet. */}}
{{- define "gputopo.explainPeer" -}}
projected:
  sources:
    - serviceAccountToken: {audience: gputopo-explain, expirationSeconds: 3600, path: token}
{{- end }}

{{/* Where whoever has a token for it may ask why, from the pods' name and the root. */}}
{{- define "gputopo.explainService" }}
---
apiVersion: v1
kind: Service
metadata:
  name: gputopo-explain
  namespace: {{ (index . 1).Release.Namespace }}
  labels: {{ include "gputopo.labels" (index . 0) }}
spec:
  selector: {app.kubernetes.io/name: {{ index . 0 }}}
  ports:
    - {name: explain, port: 8887, targetPort: explain}
{{- end }}

"""Renders the chart, and finds objects among the rendered manifests."""

import functools
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "helm" / "tern"
HELM = ROOT / ".tern" / "tools" / "helm" / "helm"
TERN = ROOT / "target" / "debug" / "tern"
ROLES = ["gateway", "chat", "presence", "accounts", "media", "push"]
WORKLOADS = ["Deployment", "StatefulSet", "Job", "Pod"]

# Values that switch on everything that is off by default, and take the other one of two choices.
EVERYTHING = """
image: {digest: "sha256:%s", pullSecrets: [registry]}
labels: {team: chat}
ipv6: true
flags: {log: "info,tern_chat=debug", otlp-endpoint: "http://collector:4317", otlp-sample: 0.5}
etcd: {endpoints: ["http://a:2379", "http://b:2379"]}
database: {existingSecret: db}
migration: {mode: initContainer, existingSecret: ddl}
tokens: {existingSecret: tokens, verifyKeys: [old.pem, new.pem]}
masterKey: {existingSecret: master}
internalTls: {enabled: true, certManager: {enabled: true, issuerRef: {name: nodes}}}
pods: {antiAffinity: none, spreadOver: [], nodeSelector: {disk: ssd}, tolerations: [{operator: Exists}], annotations: {a: b}}
gateway:
  tls: {certManager: {enabled: true, dnsNames: [chat.example.com], issuerRef: {name: letsencrypt, kind: ClusterIssuer}}}
  service: {cloud: aws, annotations: {x: "y"}, sourceRanges: [10.0.0.0/8], loadBalancerClass: lb}
  flags: {gateway-max-sessions: 1000000, gateway-allowed-origins: [a, b], gateway-reflection: true, reflection: false}
  autoscaling: {enabled: true, streams: 1200000}
  priorityClassName: high
chat: {autoscaling: {enabled: true, cpu: 0, shardBusy: 600m}, antiAffinity: hard}
presence: {autoscaling: {enabled: true}}
accounts: {autoscaling: {enabled: true}, egress: [{ports: [{port: 443}], to: [{ipBlock: {cidr: 10.2.0.0/16}}]}]}
media:
  autoscaling: {enabled: true}
  tickets: {existingSecret: tickets, key: keys}
  objectStore: {endpoint: "http://minio:9000", publicEndpoint: "https://media.example.com", pathStyle: true, existingSecret: s3}
  cdn: {url: "https://cdn.example.com/media", existingSecret: cdn}
push: {enabled: true, autoscaling: {enabled: true}, existingSecret: push, key: push-apps.json}
pushRelay: {enabled: true, existingSecret: relay, tls: {existingSecret: relay-tls}, flags: {rate: 500}}
canary: {enabled: true, existingSecret: canary, url: "https://chat.example.com:8443", caSecret: ca, interval: 0.5}
networkPolicy:
  clients: [{ipBlock: {cidr: 0.0.0.0/0}}]
  postgres: [{ipBlock: {cidr: 10.1.0.0/16}}]
  etcd: [{podSelector: {matchLabels: {app: etcd}}}]
  objectStore: [{podSelector: {matchLabels: {app: minio}}}]
  push: []
  frontDoor: [{ipBlock: {cidr: 0.0.0.0/0}}]
monitoring: {podMonitor: {enabled: true}, prometheusRule: {enabled: true, runbook: "https://wiki/runbook"}, dashboards: {enabled: true}}
""" % ("0" * 64)

# The fewest values that an installation with every role needs.
LEAST = """
etcd: {endpoints: ["http://etcd:2379"]}
database: {existingSecret: db}
tokens: {existingSecret: tokens}
masterKey: {existingSecret: master}
internalTls: {plaintext: true}
gateway: {tls: {existingSecret: tls}}
media: {tickets: {existingSecret: tickets}, objectStore: {existingSecret: s3}}
push: {enabled: true, existingSecret: push}
"""

VALUES = {
    "eval": (CHART / "values-eval.yaml").read_text(encoding="utf-8"),
    "production": (CHART / "values-production.yaml").read_text(encoding="utf-8"),
    "everything": EVERYTHING,
    "least": LEAST,
}


def helm(*args: str, values: str = "") -> subprocess.CompletedProcess:
    command = [HELM, *args, "-f", "-"]
    return subprocess.run(command, input=values, capture_output=True, text=True, check=False)


@functools.cache
def text_of(values: str, *more: str) -> str:
    """Returns the manifests as text."""
    run = helm("template", "tern", str(CHART), "--namespace", "chat", *more, values=values)
    if run.returncode != 0:
        raise AssertionError(run.stderr)
    return run.stdout


def rendered(values: str, *more: str) -> list[dict]:
    return [document for document in yaml.safe_load_all(text_of(values, *more)) if document]


def refusal(values: str, *more: str) -> str:
    """Returns the error with which Helm refuses these values."""
    run = helm("template", "tern", str(CHART), *more, values=values)
    if run.returncode == 0:
        raise AssertionError(f"nobody refused {values}")
    return run.stderr


def kinds(documents: list[dict], *wanted: str) -> list[dict]:
    return [document for document in documents if document["kind"] in wanted]


def find(documents: list[dict], kind: str, name: str) -> dict:
    return next(d for d in kinds(documents, kind) if d["metadata"]["name"] == name)


def pod(workload: dict) -> dict:
    """Returns the metadata and spec of a workload's pods."""
    return workload if workload["kind"] == "Pod" else workload["spec"]["template"]


def component(document: dict) -> str:
    return document["metadata"]["labels"]["app.kubernetes.io/component"]


def containers(workload: dict) -> list[dict]:
    spec = pod(workload)["spec"]
    return spec.get("initContainers", []) + spec["containers"]


def args(workload: dict) -> list[str]:
    return pod(workload)["spec"]["containers"][0]["args"]

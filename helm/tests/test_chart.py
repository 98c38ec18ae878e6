"""Checks the rules that hold for everything that the chart renders."""

import json
import re
import subprocess
import unittest

import yaml

import chart
from chart import CHART, ROLES, ROOT, VALUES, WORKLOADS, component, containers, find, kinds, pod, refusal, rendered

OURS = [*ROLES, "push-relay", "canary", "migrate", "test"]


def workloads(values: str) -> list[dict]:
    return kinds(rendered(VALUES[values]), *WORKLOADS)


class Manifests(unittest.TestCase):
    def test_helm_lints_every_values_file(self):
        for name, values in VALUES.items():
            run = chart.helm("lint", "--strict", str(CHART), values=values)
            self.assertEqual(run.returncode, 0, f"{name}: {run.stdout}")

    def test_kubernetes_would_take_every_manifest(self):
        program = ROOT / ".tern" / "venv" / "bin" / "kubernetes-validate"
        for name, values in VALUES.items():
            manifests = chart.text_of(values)
            run = subprocess.run(
                [program, "-k", "1.33", "--strict", "-"], input=manifests, capture_output=True, text=True, check=False
            )
            self.assertEqual(run.returncode, 0, f"{name}: {run.stdout}{run.stderr}")

    def test_no_name_stands_twice_and_every_object_is_labelled(self):
        for values in VALUES:
            seen = set()
            for document in rendered(VALUES[values]):
                name = (document["kind"], document["metadata"]["name"])
                self.assertNotIn(name, seen)
                seen.add(name)
                self.assertIn("app.kubernetes.io/component", document["metadata"]["labels"], name)

    def test_services_and_budgets_find_their_pods(self):
        for values in VALUES:
            documents = rendered(VALUES[values])
            pods = [pod(workload)["metadata"]["labels"] for workload in kinds(documents, *WORKLOADS)]
            for document in kinds(documents, "Service", "PodDisruptionBudget", "NetworkPolicy"):
                spec = document["spec"]
                selector = spec.get("podSelector") or spec["selector"]
                selector = selector.get("matchLabels", selector)
                found = [labels for labels in pods if selector.items() <= labels.items()]
                self.assertEqual(len(found), 1, f"{document['kind']} {document['metadata']['name']}")


class Pods(unittest.TestCase):
    def test_every_container_is_locked_down(self):
        for values in VALUES:
            for workload in workloads(values):
                spec = pod(workload)["spec"]
                self.assertIs(spec["automountServiceAccountToken"], False)
                self.assertIs(spec["enableServiceLinks"], False, "TERN_…_PORT would look like settings")
                self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                self.assertFalse({"hostNetwork", "hostPID", "hostIPC"} & spec.keys())
                for container in containers(workload):
                    security = container["securityContext"]
                    self.assertIs(security["readOnlyRootFilesystem"], True)
                    self.assertIs(security["allowPrivilegeEscalation"], False)
                    self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                    self.assertIn("memory", container["resources"]["limits"])
                    self.assertIn("cpu", container["resources"]["requests"])

    def test_a_drain_has_time_to_end_before_the_pod_is_killed(self):
        for values in VALUES:
            for workload in workloads(values):
                if component(workload) not in ROLES:
                    continue
                spec = pod(workload)["spec"]
                container = spec["containers"][0]
                stop = container["lifecycle"]["preStop"]["sleep"]["seconds"]
                drain = next(int(a.partition("=")[2]) for a in container["args"] if a.startswith("--drain-timeout="))
                self.assertGreaterEqual(spec["terminationGracePeriodSeconds"], stop + drain + 10)
                self.assertGreater(stop, 0)
        longer = rendered(VALUES["least"], "--set", "preStopSeconds=100,drainTimeout=200")
        for role in ROLES:
            workload = next(w for w in kinds(longer, *WORKLOADS) if component(w) == role)
            self.assertEqual(pod(workload)["spec"]["terminationGracePeriodSeconds"], 315)

    def test_roles_that_own_slots_keep_their_names(self):
        documents = rendered(VALUES["least"])
        kind = {component(w): w["kind"] for w in kinds(documents, *WORKLOADS)}
        self.assertEqual([kind[role] for role in ROLES], ["Deployment", "StatefulSet", "StatefulSet", *["Deployment"] * 3])
        for role in ROLES:
            self.assertEqual(find(documents, "PodDisruptionBudget", f"tern-{role}")["spec"]["maxUnavailable"], 1)
            service = f"tern-{role}" + ("-internal" if role == "gateway" else "")
            self.assertEqual(find(documents, "Service", service)["spec"]["clusterIP"], "None")

    def test_production_has_three_of_each_on_machines_of_their_own(self):
        for workload in workloads("production"):
            if component(workload) in ROLES:
                scaler = [d for d in kinds(rendered(VALUES["production"]), "HorizontalPodAutoscaler")
                          if component(d) == component(workload)]
                replicas = scaler[0]["spec"]["minReplicas"] if scaler else workload["spec"]["replicas"]
                self.assertGreaterEqual(replicas, 3)
                apart = pod(workload)["spec"]["affinity"]["podAntiAffinity"]
                self.assertIn("requiredDuringSchedulingIgnoredDuringExecution", apart)

    def test_autoscalers_own_the_number_of_pods(self):
        documents = rendered(VALUES["everything"])
        for role in ROLES:
            scaler = find(documents, "HorizontalPodAutoscaler", f"tern-{role}")
            target = scaler["spec"]["scaleTargetRef"]
            self.assertNotIn("replicas", find(documents, target["kind"], target["name"])["spec"])
        metrics = find(documents, "HorizontalPodAutoscaler", "tern-gateway")["spec"]["metrics"]
        self.assertEqual([m["type"] for m in metrics], ["Resource", "Pods"])
        self.assertEqual(metrics[1]["pods"]["target"]["averageValue"], "1200000")
        metrics = find(documents, "HorizontalPodAutoscaler", "tern-chat")["spec"]["metrics"]
        self.assertEqual([m["pods"]["metric"]["name"] for m in metrics], ["tern_chat_shard_busy"])
        adapter = (CHART / "prometheus-adapter.yaml").read_text(encoding="utf-8")
        given = {rule["name"]["as"] for rule in yaml.safe_load(adapter)["rules"]["custom"]}
        self.assertEqual(given, {"tern_gateway_sessions", "tern_chat_shard_busy"})


class Flags(unittest.TestCase):
    """Checks flags against the program, which has to be built."""

    @staticmethod
    def known(command: str) -> set[str]:
        run = subprocess.run([chart.TERN, *command.split(), "--help"], capture_output=True, text=True, check=True)
        return set(re.findall(r"^\s+(?:-\w, )?--([a-z0-9-]+)", run.stdout, re.M))

    def test_every_flag_of_every_template_exists(self):
        known = {command: self.known(command) for command in ["serve", "canary", "migrate", "push relay"]}
        seen = set()
        for values in VALUES:
            for workload in workloads(values):
                if component(workload) not in OURS:
                    continue
                for container in containers(workload):
                    command, *rest = container["args"]
                    command = "push relay" if command == "push" else command
                    flags = {arg.partition("=")[0][2:] for arg in rest if arg.startswith("--")}
                    self.assertLessEqual(flags, known[command], container["name"])
                    seen |= flags
        self.assertIn("gateway-tls-cert", seen)

    def test_variables_that_templates_set_are_those_of_flags(self):
        flags = self.known("serve") | self.known("canary") | self.known("migrate")
        variables = {"TERN_" + flag.upper().replace("-", "_") for flag in flags}
        for values in VALUES:
            for workload in workloads(values):
                if component(workload) in OURS:
                    for container in containers(workload):
                        names = {e["name"] for e in container.get("env", []) if e["name"].startswith("TERN_")}
                        self.assertLessEqual(names, variables)

    def test_what_the_chart_fills_in_is_a_flag_and_cannot_be_set_twice(self):
        helpers = (CHART / "templates" / "_helpers.tpl").read_text(encoding="utf-8")
        own = re.search(r'define "tern.ownFlags" -}}(.*?){{- end', helpers, re.S)[1].split()
        self.assertLessEqual(set(own), self.known("serve"))
        filled = set()
        for values in VALUES:
            for workload in workloads(values):
                if component(workload) in ROLES:
                    filled |= {arg.partition("=")[0][2:] for arg in chart.args(workload)[2:]}
        filled -= set(yaml.safe_load(VALUES["everything"])["flags"]) | {"log-format"}
        for values in ["everything", "eval"]:
            for role in ["gateway", "media"]:
                filled -= set(yaml.safe_load(VALUES[values])[role].get("flags", []))
        self.assertLessEqual(filled, set(own))
        said = refusal(VALUES["least"], "--set", "chat.flags.database-pool-size=3")
        self.assertIn("--database-pool-size is filled in by the chart", said)

    def test_values_become_what_the_program_reads(self):
        args = chart.args(find(rendered(VALUES["everything"]), "Deployment", "tern-gateway"))
        for wanted in ["--gateway-max-sessions=1000000", "--gateway-allowed-origins=a,b", "--gateway-reflection",
                       "--otlp-sample=0.5", "--internal-listen=[::]:7070", "--internal-advertise=[$(POD_IP)]:7070",
                       "--token-verify-files=/etc/tern/tokens/old.pem,/etc/tern/tokens/new.pem",
                       "--etcd-endpoints=http://a:2379,http://b:2379"]:
            self.assertIn(wanted, args)
        self.assertNotIn("--reflection", args, "false leaves a switch out")


class Secrets(unittest.TestCase):
    def test_an_installation_makes_no_secrets_and_names_each_that_is_missing(self):
        for values in ["production", "everything", "least"]:
            self.assertEqual(kinds(rendered(VALUES[values]), "Secret"), [])
        for value in ["database.existingSecret", "tokens.existingSecret", "masterKey.existingSecret",
                      "gateway.tls.existingSecret", "media.tickets.existingSecret", "media.objectStore.existingSecret", "push.existingSecret"]:
            self.assertIn(value, refusal(VALUES["least"], "--set", f"{value}="))
        self.assertIn("etcd.endpoints", refusal(VALUES["least"], "--set", "etcd.endpoints=null"))
        self.assertIn("canary.existingSecret", refusal(VALUES["least"], "--set", "canary.enabled=true,canary.url=http://x"))

    def test_who_signs_and_who_verifies_get_what_they_need_and_no_more(self):
        documents = rendered(VALUES["everything"])
        of = {w: pod(find(documents, "Deployment", f"tern-{w}"))["spec"]["volumes"] for w in ["gateway", "accounts"]}
        items = {w: [i["key"] for v in volumes if v["name"] == "tokens" for i in v["secret"]["items"]]
                 for w, volumes in of.items()}
        self.assertEqual(items, {"gateway": ["old.pem", "new.pem"], "accounts": ["token-key.pem"]})
        users = {component(w) for w in kinds(documents, *WORKLOADS) if "TERN_DATABASE_URL" in str(w)}
        self.assertEqual(users, {"chat", "accounts", "presence", "media", "push"})
        buckets = {component(w) for w in kinds(documents, *WORKLOADS) if "TERN_MEDIA_S3_SECRET_ACCESS_KEY" in str(w)}
        self.assertEqual(buckets, {"media"})
        tickets = {component(w) for w in kinds(documents, *WORKLOADS) if "--media-ticket-key-file" in str(w)}
        self.assertEqual(tickets, {"chat", "media"})

    def test_every_node_shows_and_trusts_the_internal_certificate_where_there_is_one(self):
        secrets = {"eval": "tern-eval", "production": "tern-internal-tls", "everything": "tern-internal-tls", "least": None}
        for values, secret in secrets.items():
            for workload in kinds(rendered(VALUES[values]), "Deployment", "StatefulSet"):
                if component(workload) in ROLES:
                    spec = pod(workload)["spec"]
                    named = [v["secret"]["secretName"] for v in spec.get("volumes", []) if v["name"] == "internal-tls"]
                    self.assertEqual(named, [secret] if secret else [])
                    mounted = [m for m in spec["containers"][0].get("volumeMounts", []) if m["name"] == "internal-tls"]
                    given = [arg for arg in chart.args(workload) if arg.startswith("--internal-tls-")]
                    self.assertEqual((len(mounted), len(given)), (1, 3) if secret else (0, 0))
                    self.assertEqual("--internal-plaintext" in chart.args(workload), not secret)
        certificate = find(rendered(VALUES["everything"]), "Certificate", "tern-internal")["spec"]
        self.assertEqual(certificate["dnsNames"], ["tern-internal"])
        self.assertLessEqual({"server auth", "client auth"}, set(certificate["usages"]))
        self.assertIn("internalTls.existingSecret", refusal(VALUES["least"], "--set", "internalTls.enabled=true"))

    def test_production_does_not_talk_in_plain_text_unsaid(self):
        self.assertIn("internalTls.plaintext", refusal(VALUES["least"], "--set", "internalTls.plaintext=false"))
        unsaid = rendered(VALUES["least"], "--set", "internalTls.plaintext=false", "--set", "profile=development")
        self.assertNotIn("--internal-plaintext", chart.args(find(unsaid, "StatefulSet", "tern-chat")))

    def test_an_evaluation_makes_its_own_and_uses_no_others(self):
        documents = rendered(VALUES["eval"])
        made = {d["metadata"]["name"]: set(d["data"]) for d in kinds(documents, "Secret")}
        self.assertEqual(list(made), ["tern-eval"])
        asked = re.findall(r"secretKeyRef:\s+name: (\S+)\s+key: (\S+)", chart.text_of(VALUES["eval"]))
        self.assertTrue(asked)
        for name, key in asked:
            self.assertIn(key, made[name])
        for workload in kinds(documents, *WORKLOADS):
            for volume in pod(workload)["spec"].get("volumes", []):
                for item in volume.get("secret", {}).get("items", []):
                    self.assertIn(item["key"], made[volume["secret"]["secretName"]])
        self.assertIn("initContainer", refusal(VALUES["eval"], "--set", "migration.mode=hook"))


class Network(unittest.TestCase):
    @staticmethod
    def arrows(policy: dict, way: str, peers: str, port: int) -> set[str]:
        """Returns the components that a policy's rules for this port let through. `*` means everybody."""
        found = set()
        for rule in policy["spec"][way]:
            if port in [p["port"] for p in rule["ports"]]:
                for peer in rule.get(peers, [{}]):
                    labels = peer.get("podSelector", {}).get("matchLabels", {})
                    found.add(labels.get("app.kubernetes.io/component", "*"))
        return found

    def test_nodes_reach_each_other_and_just_the_stores_that_they_need(self):
        for values in VALUES:
            policies = {component(p): p for p in kinds(rendered(VALUES[values]), "NetworkPolicy")}
            out = {(a, b) for a in ROLES for b in self.arrows(policies[a], "egress", "to", 7070)}
            into = {(a, b) for b in ROLES for a in self.arrows(policies[b], "ingress", "from", 7070)}
            # A node that does not reach etcd asks the others for the map.
            everybody = {(a, b) for a in ROLES for b in ROLES}
            self.assertEqual(out, everybody)
            self.assertEqual(into, everybody)
            stores = {role for role in policies if self.arrows(policies[role], "egress", "to", 5432)}
            self.assertEqual(stores - {"migrate"}, {"chat", "accounts", "presence", "media", "push"})
            maps = {role for role in policies if self.arrows(policies[role], "egress", "to", 2379)}
            self.assertEqual(maps, set(ROLES))
            clients = {role for role in ROLES if self.arrows(policies[role], "ingress", "from", 7443)}
            self.assertEqual(clients, {"gateway"})
            for policy in policies.values():
                self.assertEqual(policy["spec"]["policyTypes"], ["Ingress", "Egress"])

    def test_a_role_may_be_let_out_further(self):
        policies = {component(p): p for p in kinds(rendered(VALUES["everything"]), "NetworkPolicy")}
        let_out = {role for role in ROLES if self.arrows(policies[role], "egress", "to", 443)}
        self.assertEqual(let_out, {"accounts", "push"})

    def test_media_nodes_alone_reach_the_object_store_wherever_it_listens(self):
        ports = {"eval": 8333, "production": 443, "everything": 9000, "least": 443}
        for values, port in ports.items():
            policies = {component(p): p for p in kinds(rendered(VALUES[values]), "NetworkPolicy")}
            reach = {role for role in ["gateway", "chat", "presence", "media"] if self.arrows(policies[role], "egress", "to", port)}
            self.assertEqual(reach, {"media"}, values)

    def test_without_media_nothing_of_it_is_there(self):
        documents = rendered(VALUES["least"], "--set", "media.enabled=false,media.tickets.existingSecret=")
        self.assertNotIn("media", {component(w) for w in kinds(documents, *WORKLOADS, "NetworkPolicy")})
        self.assertNotIn("--media-ticket-key-file", str(chart.args(find(documents, "StatefulSet", "tern-chat"))))

    def test_push_nodes_alone_reach_the_internet_and_by_default_nothing_private(self):
        for values in ["eval", "production", "least"]:
            policies = {component(p): p for p in kinds(rendered(VALUES[values]), "NetworkPolicy")}
            blocks = {role: [peer["ipBlock"] for rule in policies[role]["spec"]["egress"] for peer in rule.get("to", [])
                             if "ipBlock" in peer] for role in ROLES}
            self.assertEqual({role for role in ROLES if blocks[role]}, {"push"}, values)
            self.assertEqual([block["cidr"] for block in blocks["push"]], ["0.0.0.0/0", "::/0"])
            for private in ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]:
                self.assertIn(private, blocks["push"][0]["except"])
            ports = {p["port"] for rule in policies["push"]["spec"]["egress"] for p in rule["ports"]
                     if any("ipBlock" in peer for peer in rule.get("to", []))}
            self.assertEqual(ports, {443})

    def test_push_nodes_have_their_whole_secret_and_no_other_pod_has_it(self):
        documents = rendered(VALUES["everything"])
        having = {component(w): v["secret"] for w in kinds(documents, *WORKLOADS)
                  for v in pod(w)["spec"].get("volumes", []) if v.get("secret", {}).get("secretName") == "push"}
        self.assertEqual(list(having), ["push"])
        self.assertNotIn("items", having["push"], "the file names keys beside it")
        self.assertIn("--push-apps=/etc/tern/push/push-apps.json", chart.args(find(documents, "Deployment", "tern-push")))

    def test_a_relay_has_its_secret_and_certificate_and_knows_nothing_of_the_platform(self):
        documents = rendered(VALUES["everything"])
        relay = find(documents, "Deployment", "tern-push-relay")
        volumes = {v["name"]: v["secret"] for v in pod(relay)["spec"]["volumes"]}
        self.assertEqual({name: v["secretName"] for name, v in volumes.items()}, {"push": "relay", "tls": "relay-tls"})
        args = chart.args(relay)
        self.assertEqual(args[:2], ["push", "relay"])
        for wanted in ["--push-apps=/etc/tern/push/apps.json", "--keys=/etc/tern/push/keys", "--rate=500",
                       "--tls-cert=/etc/tern/tls/tls.crt", "--otlp-sample=0.5"]:
            self.assertIn(wanted, args)
        self.assertNotIn("--plaintext", args)
        policy = find(documents, "NetworkPolicy", "tern-push-relay")
        self.assertEqual({p["port"] for rule in policy["spec"]["egress"] for p in rule["ports"]}, {53, 443, 4317})
        self.assertEqual({p["port"] for rule in policy["spec"]["ingress"] for p in rule["ports"]}, {7443, 7071})
        self.assertEqual(find(documents, "Service", "tern-push-relay")["spec"]["ports"][0]["targetPort"], "pushes")
        self.assertEqual(find(documents, "PodDisruptionBudget", "tern-push-relay")["spec"]["maxUnavailable"], 1)
        self.assertNotIn("push-relay", {component(d) for d in rendered(VALUES["production"])}, "it is off by default")

    def test_a_relay_is_told_what_it_needs(self):
        on = ["--set", "pushRelay.enabled=true"]
        tls = ["--set", "pushRelay.tls.existingSecret=relay-tls"]
        self.assertIn("pushRelay.tls", refusal(VALUES["least"], *on, "--set", "pushRelay.existingSecret=relay"))
        self.assertIn("pushRelay.existingSecret", refusal(VALUES["least"], *on, *tls))
        twice = ["--set", "pushRelay.existingSecret=relay,pushRelay.flags.keys=/x"]
        self.assertIn("--keys is filled in by the chart", refusal(VALUES["least"], *on, *tls, *twice))
        plain = ["--set", "pushRelay.existingSecret=relay,pushRelay.tls.plaintext=true"]
        relay = find(rendered(VALUES["least"], *on, *plain), "Deployment", "tern-push-relay")
        self.assertIn("--plaintext", chart.args(relay))
        self.assertEqual([v["name"] for v in pod(relay)["spec"]["volumes"]], ["push"])

    def test_without_push_nothing_of_it_is_there(self):
        documents = rendered(VALUES["least"], "--set", "push.enabled=false,push.existingSecret=")
        self.assertNotIn("push", {component(w) for w in kinds(documents, *WORKLOADS, "NetworkPolicy")})

    def test_every_pod_has_a_policy(self):
        for values in VALUES:
            documents = rendered(VALUES[values])
            pods = {component(w) for w in kinds(documents, *WORKLOADS)}
            self.assertEqual(pods, {component(p) for p in kinds(documents, "NetworkPolicy")})

    def test_the_evaluations_servers_are_reached_by_who_needs_them_only(self):
        policies = {component(p): p for p in kinds(rendered(VALUES["eval"]), "NetworkPolicy")}
        stores = {"chat", "presence", "accounts", "media", "push", "migrate"}
        self.assertEqual(self.arrows(policies["eval-postgres"], "ingress", "from", 5432), stores)
        self.assertEqual(self.arrows(policies["eval-objects"], "ingress", "from", 8333), {"media"})
        self.assertEqual(self.arrows(policies["eval-etcd"], "ingress", "from", 2379), set(ROLES))
        self.assertEqual(self.arrows(policies["chat"], "egress", "to", 5432), {"eval-postgres"})

    def test_the_edge_is_a_balancer_of_connections(self):
        service = find(rendered(VALUES["everything"]), "Service", "tern-gateway")
        self.assertEqual(service["spec"]["ports"], [{"name": "clients", "port": 443, "targetPort": "clients"}])
        self.assertEqual(service["spec"]["externalTrafficPolicy"], "Local")
        annotations = service["metadata"]["annotations"]
        self.assertEqual(annotations["service.beta.kubernetes.io/aws-load-balancer-nlb-target-type"], "ip")
        self.assertEqual(annotations["x"], "y")
        for cloud in ["gcp", "azure"]:
            documents = rendered(VALUES["least"], "--set", f"gateway.service.cloud={cloud}")
            self.assertEqual(len(find(documents, "Service", "tern-gateway")["metadata"]["annotations"]), 1)
        self.assertNotIn("annotations", find(rendered(VALUES["least"]), "Service", "tern-gateway")["metadata"])


class Hooks(unittest.TestCase):
    def test_the_schema_is_brought_up_to_date_before_pods_change(self):
        documents = rendered(VALUES["production"])
        job = find(documents, "Job", "tern-migrate")
        policy = find(documents, "NetworkPolicy", "tern-migrate")
        for document in [job, policy]:
            self.assertEqual(document["metadata"]["annotations"]["helm.sh/hook"], "pre-install,pre-upgrade")
        weight = [int(d["metadata"]["annotations"]["helm.sh/hook-weight"]) for d in [policy, job]]
        self.assertLess(*weight)
        self.assertNotIn("serviceAccountName", job["spec"]["template"]["spec"], "there is none yet")
        self.assertEqual(chart.args(job), ["migrate"])

    def test_helm_test_sends_one_message_under_a_name_of_its_own(self):
        test = find(rendered(VALUES["production"]), "Pod", "tern-test-message")
        self.assertEqual(test["metadata"]["annotations"]["helm.sh/hook"], "test")
        self.assertIn("--once", chart.args(test))
        self.assertIn("--name=helm-test", chart.args(test))
        canary = chart.args(find(rendered(VALUES["production"]), "Deployment", "tern-canary"))
        self.assertFalse([arg for arg in canary if arg.startswith("--name=") or arg == "--once"])


class Schema(unittest.TestCase):
    def test_values_that_make_no_sense_are_refused_with_words(self):
        cases = [("gateway.replicas=0", "replicas"), ("migration.cells=3", "cells"), ("profile=prod", "profile"),
                 ("gatway.replicas=3", "gatway"), ("gateway.service.cloud=oracle", "cloud"),
                 ("graceMargin=3", "graceMargin"), ("etcd.endpoints={https://etcd:2379}", "endpoints"),
                 ("image.digest=latest", "digest"), ("pods.antiAffinity=yes", "antiAffinity")]
        for case, word in cases:
            self.assertIn(word, refusal(VALUES["least"], "--set", case), case)

    def test_the_schema_knows_every_value(self):
        schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
        values = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
        self.assertEqual(schema["properties"].keys() - {"global"}, values.keys())


class Watching(unittest.TestCase):
    RUNBOOK = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")

    def alerts(self) -> dict:
        return yaml.safe_load((CHART / "alerts.yaml").read_text(encoding="utf-8"))

    def test_the_rules_are_those_of_the_file_with_links_to_ones_own_runbook(self):
        rule = find(rendered(VALUES["everything"]), "PrometheusRule", "tern")
        text = json.dumps(self.alerts()["groups"]).replace("docs/runbook.md#", "https://wiki/runbook#")
        self.assertEqual(rule["spec"]["groups"], json.loads(text))

    def test_a_platform_without_media_misses_no_media_nodes(self):
        rule = find(rendered(VALUES["everything"], "--set", "media.enabled=false"), "PrometheusRule", "tern")
        rules = [rule for group in rule["spec"]["groups"] for rule in group["rules"]]
        gone = next(rule for rule in rules if rule["alert"] == "TernRoleGone")
        self.assertIn("accounts", gone["expr"])
        self.assertNotIn("media", gone["expr"])

    def test_a_platform_without_push_misses_no_push_nodes(self):
        for media in ["true", "false"]:
            off = ["--set", f"push.enabled=false,media.enabled={media}"]
            rule = find(rendered(VALUES["everything"], *off), "PrometheusRule", "tern")
            rules = [rule for group in rule["spec"]["groups"] for rule in group["rules"]]
            gone = next(rule for rule in rules if rule["alert"] == "TernRoleGone")
            self.assertIn("accounts", gone["expr"])
            self.assertNotIn("push", gone["expr"])

    def test_each_alert_has_its_section_and_each_section_its_alert(self):
        rules = [rule for group in self.alerts()["groups"] for rule in group["rules"]]
        sections = dict(re.findall(r"^## (Tern\w+)\n(.*?)(?=^## |\Z)", self.RUNBOOK, re.M | re.S))
        self.assertEqual(sections.keys(), {rule["alert"] for rule in rules})
        for rule in rules:
            self.assertEqual(rule["annotations"]["runbook_url"], f"docs/runbook.md#{rule['alert'].lower()}")
            self.assertIn(rule["labels"]["severity"], ["warning", "critical"])
            for part in ["**Means.**", "**Look.**", "**Mend.**"]:
                self.assertIn(part, sections[rule["alert"]], rule["alert"])

    def test_dashboards_are_the_files_and_every_panel_asks_something(self):
        maps = [d for d in kinds(rendered(VALUES["everything"]), "ConfigMap")]
        files = sorted((CHART / "dashboards").glob("*.json"))
        self.assertEqual([name for d in maps for name in d["data"]], [file.name for file in files])
        for document, file in zip(maps, files):
            self.assertEqual(document["metadata"]["labels"]["grafana_dashboard"], "1")
            dashboard = json.loads(document["data"][file.name])
            self.assertEqual(dashboard, json.loads(file.read_text(encoding="utf-8")))
            self.assertTrue(all(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]))

    def test_every_pod_that_has_metrics_is_scraped(self):
        documents = rendered(VALUES["everything"])
        monitor = find(documents, "PodMonitor", "tern")["spec"]
        endpoint = monitor["podMetricsEndpoints"][0]
        left_out = monitor["selector"]["matchExpressions"][0]["values"]
        for workload in kinds(documents, *WORKLOADS):
            ports = [p["name"] for p in pod(workload)["spec"]["containers"][0].get("ports", []) if "name" in p]
            self.assertEqual(endpoint["port"] in ports, component(workload) not in left_out, component(workload))


if __name__ == "__main__":
    unittest.main()

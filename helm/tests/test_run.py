"""Runs the evaluation as the chart renders it, pod by pod and without a cluster, up to `helm test`."""

import base64
import pathlib
import signal
import socket
import tempfile
import unittest

import chart
import pods
import scratch_root
from chart import ROLES, VALUES, component, find, kinds, pod, rendered

MESSAGE_TEST = ["--set", "canary.existingSecret=tern-canary"]


def answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=3).close()
        return True
    except OSError:
        return False


@unittest.skipUnless(scratch_root.can_run(), "needs root, for chroot")
class Evaluation(unittest.TestCase):
    def test_every_pod_starts_with_what_it_is_given_and_a_message_gets_through(self):
        documents = list(rendered(VALUES["eval"], *MESSAGE_TEST))
        with tempfile.TemporaryDirectory(prefix="tern-pods-") as directory:
            pods.open_to_postgres(pathlib.Path(directory))
            with pods.Place(pathlib.Path(directory), documents) as place:
                self.servers(place)
                roles = [w for role in ROLES for w in kinds(documents, *chart.WORKLOADS) if component(w) == role]
                for workload in roles:
                    place.address(workload["metadata"]["name"])
                for workload in roles:
                    self.begin(place, workload)
                for workload in roles:
                    place.until_ready(workload)
                    self.assertEqual(place.probe(workload, "livenessProbe"), 200)
                self.message(place, documents)
                for workload in roles:
                    place.processes[workload["metadata"]["name"]].send_signal(signal.SIGTERM)
                for workload in roles:
                    name = workload["metadata"]["name"]
                    grace = pod(workload)["spec"]["terminationGracePeriodSeconds"]
                    self.assertEqual(place.processes[name].wait(grace), 0, place.log(name))

    @staticmethod
    def servers(place: pods.Place) -> None:
        place.etcd("tern-eval-etcd")
        place.postgres("tern-eval-postgres", place.secret("tern-eval", "password"))
        pods.until("Postgres answers", lambda: answers(place.address("tern-eval-postgres"), 5432))
        # If SeaweedFS is not installed, media nodes keep asking for their bucket.
        if place.objects("tern-eval-objects", place.secret("tern-eval", "secret-access-key")):
            pods.until("SeaweedFS answers", lambda: answers(place.address("tern-eval-objects"), 8333))

    @staticmethod
    def begin(place: pods.Place, workload: dict) -> None:
        spec = pod(workload)["spec"]
        for container in spec.get("initContainers", []):
            place.run(workload, container)
        command, environment = place.command(workload, spec["containers"][0])
        place.start(workload["metadata"]["name"], command, env=environment)

    def message(self, place: pods.Place, documents: list[dict]) -> None:
        """Makes an API key as the chart's notes say, then runs `helm test`."""
        accounts = find(documents, "Deployment", "tern-accounts")
        container = pod(accounts)["spec"]["containers"][0]
        create = ["admin", "keys", "create", "--name", "canary", "--scopes", "users:read,users:write,devices:link"]
        notes = (chart.CHART / "templates" / "NOTES.txt").read_text(encoding="utf-8")
        self.assertIn(" ".join(["tern", *create]), notes)
        key = place.run(accounts, container, *create)
        secret = {"kind": "Secret", "metadata": {"name": "tern-canary"}, "data": {"api-key": base64.b64encode(key.encode())}}
        documents.append(secret)
        test = find(documents, "Pod", "tern-test-message")
        said = place.run(test, pod(test)["spec"]["containers"][0])
        self.assertEqual(said.count("receipt after"), 2, said)


if __name__ == "__main__":
    unittest.main()

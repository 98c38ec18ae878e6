"""Runs rendered pods as processes. Each has a root of its own, with its arguments, variables and secrets as the chart
has them, and a loopback address of its own instead of a pod's, so that the ports stay the same. Postgres and etcd are
real."""

from __future__ import annotations

import base64
import glob
import os
import pathlib
import random
import shutil
import subprocess
import time
import urllib.error
import urllib.request

import chart
import scratch_root
from chart import component, find, pod

# The seconds that a process may take from its start until it is ready, on a busy machine.
PATIENCE = 60


def status(url: str) -> int | None:
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


class Place:
    """A directory, a network of loopback addresses, and processes there, which end with its `with` block."""

    def __init__(self, directory: pathlib.Path, documents: list[dict]):
        self.directory, self.documents = directory, documents
        self.target, self.user = scratch_root.containerfile()
        self.network = f"127.{random.randint(10, 250)}.{random.randint(1, 250)}"
        self.names: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()

    def address(self, name: str) -> str:
        """Returns the address of a Service, which is also that of the one pod behind it."""
        return self.names.setdefault(name, f"{self.network}.{len(self.names) + 1}")

    def secret(self, name: str, key: str) -> bytes:
        return base64.b64decode(find(self.documents, "Secret", name)["data"][key])

    def start(self, name: str, command: list, **more) -> subprocess.Popen:
        with open(self.directory / f"{name}.log", "wb") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, **more)
        return self.processes[name]

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(encoding="utf-8")[-3000:]

    def etcd(self, name: str) -> None:
        clients, peers = f"http://{self.address(name)}:2379", f"http://{self.address(name)}:2380"
        self.start(name, [
            "etcd", "--data-dir", self.directory / "etcd", "--listen-client-urls", clients, "--advertise-client-urls", clients,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", f"default={peers}",
        ])

    def postgres(self, name: str, password: bytes) -> None:
        """Starts Postgres as the user `postgres`, because it refuses to run as root."""
        programs = pathlib.Path(max(glob.glob("/usr/lib/postgresql/*/bin")))
        home = self.directory / "postgres"
        home.mkdir()
        (home / "password").write_bytes(password)
        shutil.chown(home, "postgres", "postgres")
        shutil.chown(home / "password", "postgres", "postgres")
        low = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        init = [programs / "initdb", "-D", home / "data", "-U", "tern", "--auth=scram-sha-256", f"--pwfile={home}/password"]
        subprocess.run([*low, *init], check=True, capture_output=True)
        alone = [*low, programs / "postgres", "--single", "-D", home / "data", "postgres"]
        subprocess.run(alone, input=b"CREATE DATABASE tern", check=True, capture_output=True)
        self.start(name, [*low, programs / "postgres", "-D", home / "data", "-h", self.address(name), "-p", "5432", "-k", home])

    def objects(self, name: str, secret: bytes) -> bool:
        """Starts SeaweedFS. Returns False if the program is not installed."""
        program = shutil.which("weed", path=f"{os.environ['PATH']}:{chart.ROOT}/.tern/tools/weed/bin")
        address = self.address(name)
        if program is None:
            return False
        home = self.directory / "objects"
        home.mkdir()
        server = find(self.documents, "StatefulSet", name)
        command = [program, *pod(server)["spec"]["containers"][0]["command"][1:]]
        command = [arg.replace("-dir=/data", f"-dir={home}") for arg in command]
        alone = [f"-ip={address}", f"-ip.bind={address}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
        keys = {"AWS_ACCESS_KEY_ID": "tern", "AWS_SECRET_ACCESS_KEY": secret.decode(), "HOME": str(home)}
        self.start(name, [*command, *alone], env=keys, cwd=home)
        return True

    def root_of(self, workload: dict, container: dict) -> pathlib.Path:
        """Makes the root of a pod: the image's, with the mounted secrets and the names of all Services."""
        spec = pod(workload)["spec"]
        root = self.directory / f"{component(workload)}-{container['name']}"
        scratch_root.furnish(root, self.target)
        volumes = {volume["name"]: volume["secret"] for volume in spec.get("volumes", [])}
        for mount in container.get("volumeMounts", []):
            secret = volumes[mount["name"]]
            for item in secret["items"]:
                file = root / mount["mountPath"].lstrip("/") / item["path"]
                scratch_root.secret_file(file, self.secret(secret["secretName"], item["key"]), self.user)
        (root / "etc").mkdir(exist_ok=True)
        hosts = "".join(f"{address} {name}\n" for name, address in self.names.items())
        (root / "etc/hosts").write_text(hosts, encoding="utf-8")
        return root

    def environment(self, workload: dict, container: dict) -> dict[str, str]:
        fields = {"metadata.name": f"{workload['metadata']['name']}-0", "status.podIP": self.address(workload["metadata"]["name"])}
        environment = {}
        for variable in container.get("env", []):
            source = variable["valueFrom"]
            if "fieldRef" in source:
                environment[variable["name"]] = fields[source["fieldRef"]["fieldPath"]]
            else:
                secret = source["secretKeyRef"]
                environment[variable["name"]] = self.secret(secret["name"], secret["key"]).decode()
        return environment

    def command(self, workload: dict, container: dict, *args: str) -> tuple[list[str], dict[str, str]]:
        """Returns the container's command line, or another one with `args`, and its environment."""
        environment = self.environment(workload, container)
        command = scratch_root.inside(self.root_of(workload, container), self.target, self.user)
        for arg in args or container["args"]:
            for name, value in environment.items():
                arg = arg.replace(f"$({name})", value)
            # A Service has the address of its pod here, so its port is the pod's port.
            own = self.address(workload["metadata"]["name"])
            command.append(arg.replace("0.0.0.0:", f"{own}:").replace("//tern-gateway:443", "//tern-gateway:7443"))
        return command, environment

    def run(self, workload: dict, container: dict, *args: str) -> str:
        """Runs the container to its end, and returns what it prints."""
        command, environment = self.command(workload, container, *args)
        said = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)
        if said.returncode != 0:
            raise AssertionError(f"{container['name']} of {component(workload)}: {said.stderr}")
        return said.stdout

    def probe(self, workload: dict, kind: str) -> int | None:
        """Returns the pod's answer to a probe."""
        container = pod(workload)["spec"]["containers"][0]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        get = container[kind]["httpGet"]
        return status(f"http://{self.address(workload['metadata']['name'])}:{ports[get['port']]}{get['path']}")

    def until_ready(self, workload: dict) -> None:
        name = workload["metadata"]["name"]
        end = time.monotonic() + PATIENCE
        while self.probe(workload, "readinessProbe") != 200:
            if self.processes[name].poll() is not None or time.monotonic() > end:
                raise AssertionError(f"{name} does not become ready: {self.log(name)}")
            time.sleep(0.1)


def until(what: str, holds) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(what)
        time.sleep(0.1)


def open_to_postgres(directory: pathlib.Path) -> None:
    os.chmod(directory, 0o755)

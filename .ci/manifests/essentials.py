"""Checks the manifests beyond their form, and that the program accepts their arguments."""

import ipaddress
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import tomllib

import yaml

program = pathlib.Path(sys.argv[1]).resolve()
deploy = pathlib.Path("coditect-server/deploy")
kubernetes = deploy / "kubernetes"


def documents(path):
    return [it for it in yaml.safe_load_all((kubernetes / path).read_text()) if it]


def kustomized(folder):
    """What a kustomization names, which must be all manifests of its folder but templates."""
    named = documents(f"{folder}/kustomization.yaml")[0]["resources"]
    there = {it.name for it in (kubernetes / folder).glob("*.yaml")}
    assert set(named) | {"kustomization.yaml", "secret.example.yaml", "user.yaml"} >= there, folder
    return [document for name in named for document in documents(f"{folder}/{name}")]


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


server = kustomized("server")
workspaces = kustomized("workspaces")
user = documents("workspaces/user.yaml")
secret = documents("server/secret.example.yaml")[0]


def one(these, kind, name=None):
    found = [it for it in these if it["kind"] == kind and name in (None, it["metadata"]["name"])]
    assert len(found) == 1, (kind, name, len(found))
    return found[0]


# Names and labels find what they are to find.
for these, namespace in (
    (server + [secret], "coditect"),
    (workspaces + user, "coditect-workspaces"),
):
    for it in these:
        if it["kind"] == "Namespace":
            assert it["metadata"]["name"] == namespace
            assert it["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        else:
            assert it["metadata"]["namespace"] == namespace, it["metadata"]

for these in (server, user):
    workload = one(these, "StatefulSet")
    labels = workload["spec"]["template"]["metadata"]["labels"]
    selectors = [
        workload["spec"]["selector"]["matchLabels"],
        one(these, "Service")["spec"]["selector"],
    ]
    for selector in selectors:
        assert selector.items() <= labels.items(), selector
    assert workload["spec"]["serviceName"] == one(these, "Service")["metadata"]["name"]

# One process uses a folder, and no pod can do more than it must.
for these, uid in ((server, 65532), (user, 1000)):
    workload = one(these, "StatefulSet")["spec"]
    assert workload["replicas"] == 1
    for claim in workload["volumeClaimTemplates"]:
        assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    pod = workload["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True and context["runAsUser"] == uid
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert context == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
    assert "memory" in container["resources"]["limits"]
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    volumes = {it["name"] for it in pod["volumes"]}
    claims = {it["metadata"]["name"] for it in workload["volumeClaimTemplates"]}
    assert mounts == volumes | claims
    ports = {port["name"] for port in container["ports"]}
    assert all(port["targetPort"] in ports for port in one(these, "Service")["spec"]["ports"])
assert {"cpu", "memory", "ephemeral-storage"} == one(user, "StatefulSet")["spec"]["template"][
    "spec"
]["containers"][0]["resources"]["limits"].keys()

# The server is asked in the right way, and has the time to stop.
pod = one(server, "StatefulSet")["spec"]["template"]["spec"]
(container,) = pod["containers"]
probes = {
    name: container[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")
}
assert [it["path"] for it in probes.values()] == ["/healthz", "/healthz", "/readyz"]
settings_text = one(server, "ConfigMap")["data"]["coditect.toml"]
settings = tomllib.loads(settings_text)
pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
assert pod["terminationGracePeriodSeconds"] >= pause + seconds(settings["shutdown-timeout"]) + 10
assert one(server, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= one(
    server, "StatefulSet"
)["spec"]["template"]["metadata"]["labels"].items()

# The image and the manifests agree.
dockerfile = (deploy / "Dockerfile").read_text()
assert "USER 65532:65532" in dockerfile and "CODITECT_LISTEN=0.0.0.0:8080" in dockerfile
ports = {"http": 8080, "metrics": 9090}
assert {port["name"]: port["containerPort"] for port in container["ports"]} == ports
assert settings["metrics-listen"] == "0.0.0.0:9090"
assert [port["name"] for port in one(server, "Service")["spec"]["ports"]] == ["http"]
(data,) = [it["mountPath"] for it in container["volumeMounts"] if it["name"] == "data"]
assert f"CODITECT_DATA={data} " in dockerfile and f"VOLUME {data}" in dockerfile

# The Secret's keys are what the pod asks for, and the program refuses what stands in their place.
variables = {it["name"]: it for it in container["env"]}
wanted = [it["valueFrom"]["secretKeyRef"] for it in variables.values() if "valueFrom" in it]
assert {it["key"] for it in wanted} == secret["stringData"].keys()
assert {it["name"] for it in wanted} == {secret["metadata"]["name"]}
good = {"CODITECT_MASTER_KEY": "07" * 32, "CODITECT_PEPPER": "p1:" + "A" * 43 + "="}
with tempfile.TemporaryDirectory() as folder:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("CODITECT_")}
    (pathlib.Path(folder) / "coditect.toml").write_text(settings_text)
    bare["CODITECT_CONFIG"] = f"{folder}/coditect.toml"
    assert variables["CODITECT_CONFIG"]["value"].endswith("/coditect.toml")
    shown = subprocess.run(
        [program, "config"], env=bare, check=True, capture_output=True, text=True
    )
    for name in settings:
        (line,) = [line for line in shown.stdout.splitlines() if line.startswith(f"{name} = ")]
        assert "coditect.toml:" in line, line
    for name, placeholder in secret["stringData"].items():
        flags = [program, "--ephemeral", "--listen", "127.0.0.1:0"]
        started = subprocess.run(
            flags, env=bare | good | {name: placeholder}, capture_output=True, timeout=60
        )
        assert started.returncode == 1 and not started.stdout, (name, started)


# Who gets where. A policy without ports, or without peers, lets all through.
def rules(policy, direction):
    found = policy["spec"].get(direction, [])
    for rule in found:
        assert rule.get("ports") and rule.get("from" if direction == "ingress" else "to"), policy[
            "metadata"
        ]
    return found


for policy in [it for it in server + workspaces if it["kind"] == "NetworkPolicy"]:
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
nothing = one(workspaces, "NetworkPolicy", "nothing-else")
assert nothing["spec"]["podSelector"] == {} and not rules(nothing, "ingress") + rules(
    nothing, "egress"
)
policy = one(server, "NetworkPolicy")
assert (
    policy["spec"]["podSelector"]["matchLabels"].items()
    <= one(server, "StatefulSet")["spec"]["template"]["metadata"]["labels"].items()
)
assert not rules(policy, "egress")
proxies, scrapers = rules(policy, "ingress")
assert (proxies["ports"], scrapers["ports"]) == ([{"port": "http"}], [{"port": "metrics"}])
names = [
    rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
    for rule in (proxies, scrapers)
]
assert (
    names == ["coditect-proxy", "prometheus"] and len(proxies["from"]) == len(scrapers["from"]) == 1
)

policy = one(workspaces, "NetworkPolicy", "workspaces")
labels = one(user, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
(ingress,) = rules(policy, "ingress")
(peer,) = ingress["from"]
assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "coditect"}
assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "coditect-proxy"}
dns, https = rules(policy, "egress")
assert all("podSelector" in peer and "namespaceSelector" in peer for peer in dns["to"])
assert {(it["port"], it["protocol"]) for it in dns["ports"]} == {(53, "UDP"), (53, "TCP")}
assert https["ports"] == [{"port": 443, "protocol": "TCP"}]


def reached(address):
    address = ipaddress.ip_address(address)
    for block in (peer["ipBlock"] for peer in https["to"]):
        net = ipaddress.ip_network(block["cidr"])
        excepted = [ipaddress.ip_network(it) for it in block["except"]]
        assert all(it.version == net.version and it.subnet_of(net) for it in excepted)
        if address in net and not any(address in it for it in excepted):
            return True
    return False


for outside in ("1.1.1.1", "140.82.112.3", "2606:4700::1111"):
    assert reached(outside), outside
for inside in (
    *(
        "169.254.169.254",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "::ffff:169.254.169.254",
        "2002:a9fe:a9fe::1",
    ),
    *(
        "10.96.0.1",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "127.0.0.1",
    ),
    *("fe80::1", "::1", "fc00::1", "255.255.255.255", "0.0.0.0"),
):
    assert not reached(inside), inside

# Every user's own is made of one template, whose names are names.
made = (
    (kubernetes / "workspaces/user.yaml")
    .read_text()
    .replace("USER_ID", "01a20af1-3fb1-7452-b84e-fbf374c51be6")
)
names = [it["metadata"]["name"] for it in yaml.safe_load_all(made)]
assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,61}[a-z0-9]", name) for name in names), names
site = (deploy / "nginx/coditect/site.conf").read_text()
assert "http://workspace-$coditect_user.coditect-workspaces.svc.cluster.local:3000" in site
assert names == ["workspace-01a20af1-3fb1-7452-b84e-fbf374c51be6"] * 2
print(f"{len(server + workspaces + user)} manifests hold")

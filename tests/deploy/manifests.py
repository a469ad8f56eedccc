"""Validates Kubernetes manifests, and what no schema says of them.

    manifests.py validate FILE...     by Kubernetes' own schemas, strictly; custom resources by those in
                                      tests/deploy/crds; who keeps state runs once, and replicas that share a
                                      database are replaced and drained one at a time
    manifests.py same FILE FILE       both have the same objects, whatever their order and comments
    manifests.py routes FILE...       the routes of all files lead the same paths to the same service
"""

import json
import pathlib
import re
import sys

import jsonschema
import kubernetes_validate
import yaml

KUBERNETES = "1.37"
CRDS = pathlib.Path(__file__).parent / "crds"


def documents(path):
    return [document for document in yaml.safe_load_all(pathlib.Path(path).read_text()) if document]


def validate(paths):
    for path in paths:
        found = documents(path)
        if not found:
            raise ValueError(f"{path} has no object")
        for document in found:
            try:
                validate_object(document)
            except Exception as error:
                raise ValueError(f"{path}, {document['kind']} {document['metadata']['name']}: {error}") from error
        check_cluster(path, found)


def validate_object(document):
    schema = CRDS / f"{document['kind'].lower()}.json"
    if schema.exists():
        jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(document)
    else:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    if document["kind"] == "Deployment":
        check_one_claim(document["spec"])


def check_one_claim(spec):
    """Only one process can use the state, and the next pod must wait until the last one has ended."""
    volumes = spec["template"]["spec"]["volumes"]
    has_claim = any("persistentVolumeClaim" in volume for volume in volumes)
    if has_claim and (spec["replicas"] != 1 or spec["strategy"] != {"type": "Recreate"}):
        raise ValueError(f"a claim, and {spec['replicas']} replicas with {spec['strategy']}")


def check_cluster(path, found):
    """Replicas that share a database: none is missed when pods are replaced or nodes drained, and the gateway may
    read Secrets, but nothing else."""
    for deployment in (document for document in found if document["kind"] == "Deployment"):
        spec, pod = deployment["spec"], deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        if "store" not in volumes:
            continue
        labels = spec["template"]["metadata"]["labels"]
        budgets = [document for document in found if document["kind"] == "PodDisruptionBudget"]
        wanted = {
            "two replicas or more": spec["replicas"] >= 2,
            "a rollout without a gap": spec["strategy"].get("rollingUpdate", {}).get("maxUnavailable") == 0,
            "no claim": not any("persistentVolumeClaim" in volume for volume in volumes.values()),
            "all three probes": {"startupProbe", "livenessProbe", "readinessProbe"} <= container.keys(),
            "a pause before the end": container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0) > 0,
            "a spread over machines and zones": len(pod.get("topologySpreadConstraints", [])) == 2
            and all(selects(spread["labelSelector"], labels) for spread in pod["topologySpreadConstraints"]),
            "one disruption budget of its own": [selects(budget["spec"]["selector"], labels) for budget in budgets] == [True],
            "a master key": any(
                variable["name"] == "TENANTD_MASTER_KEY_FILE" for variable in container["env"]
            ),
        }
        for what, is_so in wanted.items():
            if not is_so:
                raise ValueError(f"{path}, {deployment['metadata']['name']} lacks {what}")
    for role in (document for document in found if document["kind"] == "Role"):
        if role["rules"] != [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}]:
            raise ValueError(f"{path}, the role {role['metadata']['name']} allows {role['rules']}")


def selects(selector, labels):
    """Whether a selector is one, and fits a pod with these labels."""
    wanted = selector.get("matchLabels", {})
    return bool(wanted) and wanted.items() <= labels.items()


def objects(path):
    """Maps the identity of each object to the object."""
    found = {}
    for document in documents(path):
        about = document["metadata"]
        identity = document["kind"], about.get("namespace"), about["name"]
        if identity in found:
            raise ValueError(f"{path} has two objects {identity}")
        found[identity] = document
    return found


def check_same(first, second):
    ours, theirs = objects(first), objects(second)
    for identity in sorted(set(ours) | set(theirs), key=str):
        if ours.get(identity) != theirs.get(identity):
            both = [json.dumps(side.get(identity), indent=1, sort_keys=True) for side in (ours, theirs)]
            raise ValueError(f"{identity} differs:\n--- {first}\n{both[0]}\n--- {second}\n{both[1]}")


def routes(document):
    """Returns (host, path, service, port) of an Ingress or an IngressRoute."""
    if document["kind"] == "Ingress":
        for rule in document["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                yield rule["host"], path["path"], service["name"], service["port"]["number"]
    if document["kind"] == "IngressRoute":
        for route in document["spec"]["routes"]:
            (host,) = re.findall(r"Host\(`([^`]+)`\)", route["match"])
            for path in re.findall(r"PathPrefix\(`([^`]+)`\)", route["match"]):
                for service in route["services"]:
                    yield host, path, service["name"], service["port"]


def check_routes(paths):
    found = {path: sorted(route for document in documents(path) for route in routes(document)) for path in paths}
    first = paths[0]
    for path in paths:
        if not found[path] or found[path] != found[first]:
            raise ValueError(f"{path} has the routes {found[path]}, and {first} has {found[first]}")


COMMANDS = {
    "validate": validate,
    "same": lambda paths: check_same(*paths),
    "routes": check_routes,
}

if __name__ == "__main__":
    try:
        COMMANDS[sys.argv[1]](sys.argv[2:])
    except ValueError as error:
        sys.exit(str(error))

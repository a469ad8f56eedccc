//! Kubernetes manifests of the vendor's deployment: Deployments (and StatefulSets, Pods) with the
//! ConfigMaps and Secrets that they use, the Services in front of them, Ingresses and Traefik's
//! IngressRoutes.

mod objects;
mod routes;

use objects::{Cluster, Object, items, text};

use super::container::{self, EXPORT};
use super::exports;
use super::installation::{Installation, OldServer, SwitchCommands};
use super::inventory::{Disposition, Place};
use super::source::{Content, SourceFile};
use crate::base::shell;
use crate::bundle::ConfigNode;

/// Reads the manifests of all files together, since they refer to each other.
pub(super) fn read(sources: &[SourceFile], into: &mut Installation) {
    let manifests = sources.iter().filter_map(|source| match &source.content {
        Content::Manifests(documents) => Some((source.path.as_path(), documents)),
        _ => None,
    });
    let mut cluster = Cluster::default();
    for (path, documents) in manifests {
        documents.iter().for_each(|document| cluster.add(path, document));
    }
    for object in cluster.list_kinds(&["Deployment", "StatefulSet", "DaemonSet", "Pod"]) {
        read_workload(&cluster, object, into);
    }
    routes::read(&cluster, into);
    for object in cluster.objects() {
        account_for(&cluster, object, into);
    }
}

fn read_workload(cluster: &Cluster, object: &Object, into: &mut Installation) {
    let Some(pod) = object.pod() else { return };
    for node in items(pod, "containers") {
        let image = text(node, "image");
        let mounts = items(node, "volumeMounts");
        let variables = items(node, "env");
        let names: Vec<_> = variables.iter().map(|variable| text(variable, "name")).collect();
        let sources = items(node, "envFrom");
        let paths: Vec<_> = mounts.iter().map(|mount| mounted_at(mount)).collect();
        let is_ours =
            container::is_vendors(&image, names.iter().map(String::as_str), paths.iter().map(String::as_str));
        if !is_ours {
            continue;
        }
        let (kind, name) = (object.kind.to_ascii_lowercase(), object.name.clone());
        let label = if name == "tursio-mcp" { object.namespace.clone() } else { name.clone() };
        let mut server = OldServer::new(object.place.clone(), format!("{kind} {name}"), label);
        for source in sources {
            read_env_from(cluster, object, source, &mut server, into);
        }
        for variable in variables {
            read_variable(cluster, object, variable, &mut server, into);
        }
        for mount in mounts {
            read_mount(cluster, object, pod, mount, &mut server, into);
        }
        server.names.extend(cluster.find_services(object));
        server.switch = Some(switch(object));
        let note = "the gateway serves it";
        into.inventory.add(
            object.place.clone(),
            format!("{} {name}", object.kind),
            Disposition::Replaced,
            note,
        );
        into.servers.push(server);
    }
}

fn switch(object: &Object) -> SwitchCommands {
    let (namespace, name) = (shell::quote(&object.namespace), shell::quote(&object.name));
    let scale = format!("kubectl -n {namespace} scale {} {name}", object.kind.to_ascii_lowercase());
    let replicas = object.root.member("spec").and_then(|(_, spec)| spec.member("replicas"));
    let replicas = replicas.and_then(|(_, replicas)| replicas.text()).unwrap_or("1");
    SwitchCommands { stop: format!("{scale} --replicas=0"), start: format!("{scale} --replicas={replicas}") }
}

/// Takes all pairs of a ConfigMap or Secret.
fn read_env_from(
    cluster: &Cluster,
    object: &Object,
    source: &ConfigNode,
    server: &mut OldServer,
    into: &mut Installation,
) {
    let named = [("configMapRef", "ConfigMap"), ("secretRef", "Secret")];
    for (key, kind) in named {
        let Some((at, reference)) = source.member(key) else { continue };
        let name = text(reference, "name");
        let place = Place::line(&object.place.file, at.at.line);
        let Some(found) = cluster.find(&object.namespace, kind, &name) else {
            let note = format!(
                "it is not among what was given; give it as FROM, too (kubectl get {} {name} -o yaml)",
                kind.to_ascii_lowercase()
            );
            into.inventory.add(place, format!("{kind} {name}"), Disposition::ByHand, note);
            continue;
        };
        let prefix = text(source, "prefix");
        for (name, value) in found.data() {
            let place = Place::line(&found.place.file, value.line);
            match value.as_text() {
                Ok(text) => {
                    server.values.set_of_process(
                        &format!("{prefix}{name}"),
                        &text,
                        place,
                        &mut into.inventory,
                    );
                }
                Err(why) => into.inventory.add(place, name, Disposition::ByHand, why),
            }
        }
    }
}

fn read_variable(
    cluster: &Cluster,
    object: &Object,
    variable: &ConfigNode,
    server: &mut OldServer,
    into: &mut Installation,
) {
    let name = text(variable, "name");
    let place = Place::line(&object.place.file, variable.at.line);
    let Some((_, from)) = variable.member("valueFrom") else {
        let value = text(variable, "value");
        return server.values.set_of_process(&name, &value, place, &mut into.inventory);
    };
    let named = [("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")];
    for (reference, kind) in named {
        let Some((_, reference)) = from.member(reference) else { continue };
        let (owner, key) = (text(reference, "name"), text(reference, "key"));
        let found = cluster.find(&object.namespace, kind, &owner).and_then(|found| {
            let value = found.data().into_iter().find(|(known, _)| *known == key)?.1;
            Some((Place::line(&found.place.file, value.line), value.as_text()))
        });
        match found {
            Some((place, Ok(text))) => server.values.set_of_process(&name, &text, place, &mut into.inventory),
            Some((place, Err(why))) => into.inventory.add(place, name.clone(), Disposition::ByHand, why),
            None if text(reference, "optional") == "true" => {}
            None => {
                let note = format!("its value is in the {kind} {owner}, which is not among what was given");
                into.inventory.add(place, name.clone(), Disposition::ByHand, note);
            }
        }
        return;
    }
    let note = "the old server's pod said this of itself";
    into.inventory.add(place, name, Disposition::NotNeeded, note);
}

/// Returns where in the container a volume's file or folder is.
fn mounted_at(mount: &ConfigNode) -> String {
    let path = text(mount, "mountPath");
    match text(mount, "subPath") {
        sub if sub.is_empty() || path.ends_with(&sub) => path,
        sub => format!("{}/{sub}", path.trim_end_matches('/')),
    }
}

fn read_mount(
    cluster: &Cluster,
    object: &Object,
    pod: &ConfigNode,
    mount: &ConfigNode,
    server: &mut OldServer,
    into: &mut Installation,
) {
    let name = text(mount, "name");
    let volumes = items(pod, "volumes");
    let Some(volume) = volumes.into_iter().find(|volume| text(volume, "name") == name) else { return };
    let place = Place::line(&object.place.file, mount.at.line);
    let Some((_, secret)) = volume.member("secret") else {
        return account_for_volume(volume, &name, place, into);
    };
    let owner = text(secret, "secretName");
    let path = mounted_at(mount);
    if path != EXPORT && !EXPORT.starts_with(&format!("{}/", path.trim_end_matches('/'))) {
        let note = "not a volume of the vendor's guide; find out what was in it";
        return into.inventory.add(place, format!("Secret {owner} at {path}"), Disposition::ByHand, note);
    }
    let Some(found) = cluster.find(&object.namespace, "Secret", &owner) else {
        let note = format!(
            "the export in it is not among what was given: kubectl -n {} get secret {owner} -o yaml > \
             {owner}.yaml, and \
             give that as FROM, too",
            object.namespace
        );
        return into.inventory.add(place, format!("Secret {owner}"), Disposition::ByHand, note);
    };
    let place = found.place.clone();
    let data = found.data();
    let zip = data
        .iter()
        .find(|(key, _)| key == "server.zip")
        .or_else(|| data.iter().find(|(key, _)| key.ends_with(".zip")));
    let bytes = zip.ok_or("it has no server.zip".to_owned()).and_then(|(_, value)| value.as_bytes());
    match bytes.and_then(|bytes| exports::attach_packed(server, bytes, &found.place.file)) {
        Ok(()) => into.inventory.add(
            place,
            format!("Secret {owner}"),
            Disposition::Kept,
            "its server.zip is the export",
        ),
        Err(why) => into.inventory.add(place, format!("Secret {owner}"), Disposition::ByHand, why),
    }
}

fn account_for_volume(volume: &ConfigNode, name: &str, place: Place, into: &mut Installation) {
    let what = format!("volume {name}");
    match volume.member("csi") {
        Some(_) => {
            let note = "its secrets come from a vault: mount it at the gateway, too, and name the files in \
                        the tenant's \
                        files (api_key_file)";
            into.inventory.add(place, what, Disposition::ByHand, note);
        }
        None if volume.member("emptyDir").is_some() => {
            into.inventory.add(place, what, Disposition::NotNeeded, "a scratch folder of the old server's");
        }
        None => into.inventory.add(
            place,
            what,
            Disposition::ByHand,
            "not a volume of the vendor's guide; find out what was in it",
        ),
    }
}

/// Whether a Service is reachable from outside of the cluster, and no proxy is in front of it.
fn is_exposed(cluster: &Cluster, service: &Object) -> bool {
    let kind = service.root.member("spec").map(|(_, spec)| text(spec, "type")).unwrap_or_default();
    let has_proxy = cluster.list_kinds(&["Ingress", "IngressRoute"]).next().is_some();
    matches!(kind.as_str(), "LoadBalancer" | "NodePort") && !has_proxy
}

fn account_for(cluster: &Cluster, object: &Object, into: &mut Installation) {
    let what = format!("{} {}", object.kind, object.name);
    let (outcome, note) = match object.kind.as_str() {
        "Namespace" | "ServiceAccount" => (Disposition::NotNeeded, "the gateway's own manifests have one"),
        "ConfigMap" | "Secret" | "Deployment" | "StatefulSet" | "DaemonSet" | "Pod" | "Ingress"
        | "IngressRoute" => {
            return;
        }
        "Service" if is_exposed(cluster, object) => (
            Disposition::ByHand,
            "clients reached it without a proxy: give the gateway's Service the same address and port, or \
             tell them \
             the new URL",
        ),
        "Service" => (
            Disposition::Replaced,
            "the gateway has a Service of its own; keep its address, if clients have it",
        ),
        "NetworkPolicy" => {
            (Disposition::ByHand, "it restricted who may connect; write one for the gateway's pods")
        }
        "Middleware" => (
            Disposition::ByHand,
            "it changed or restricted requests; the gateway has no such rule: find out what it was for",
        ),
        _ => (Disposition::Left, "not part of the vendor's deployment"),
    };
    into.inventory.add(object.place.clone(), what, outcome, note);
}

//! Labelled Secrets of Kubernetes are tenants, without a restart and whatever becomes of the API.
//!
//! The API is a small server that speaks its list and watch (`harness::kubernetes`). With
//! `TENANTD_TEST_KUBECONFIG`, two tests run against a real one: `scripts/kubernetes-api.sh` starts it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use serde_json::Value;

use super::harness::kubernetes::FakeKubernetes;
use super::harness::{Era, FakeBackend, Gateway, Setup, Tenant, until};
use super::state::tenants;

fn setup(kubernetes: &FakeKubernetes) -> Setup {
    let setup = Setup::new().flag("--tenants-from", "kubernetes");
    let kubeconfig = kubernetes.kubeconfig(setup.path());
    setup.variable("KUBECONFIG", &kubeconfig)
}

async fn answers(gateway: &Gateway, tenant: &str) -> bool {
    gateway.client().search(Era::Modern, &format!("/{tenant}"), "q").await.status == 200
}

async fn connected(gateway: &Gateway, value: u8) {
    let line = format!("tenantd_kubernetes_connected{{namespace=\"tursio-mcp\"}} {value}");
    until(&line, async || gateway.admin("/metrics").await.1.contains(&line).then_some(())).await;
}

fn finding<'a>(status: &'a Value, code: &str) -> &'a Value {
    let findings = status["findings"].as_array().expect("a list");
    findings.iter().find(|finding| finding["code"] == code).unwrap_or_else(|| panic!("no {code}: {status}"))
}

#[tokio::test]
async fn a_labelled_secret_is_a_tenant_until_it_is_deleted_or_loses_the_label() {
    let (backend, kubernetes) = (FakeBackend::start().await, FakeKubernetes::start().await);
    let tenant = |name: &str| Tenant::new(name, &backend);
    kubernetes.apply("acme", &[("export.zip", &tenant("acme").zip()), (".env", b"PATH_PREFIX=/first\n")]);
    kubernetes.apply_labelled("other", &[("other.yaml", &tenant("other").yaml())], "false");
    let gateway = setup(&kubernetes).start().await;
    gateway.until_state("acme", "serving").await;
    assert!(answers(&gateway, "first").await && gateway.status("other").await.is_none());
    let copies = gateway.tenant_file(".kubernetes");
    let mode = fs::metadata(&copies).expect("made").permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "only this user reads the Secrets");

    kubernetes.apply("beta", &[("tenant.yaml", &tenant("beta").yaml())]);
    gateway.until_state("beta", "serving").await;
    kubernetes.apply("acme", &[("export.zip", &tenant("acme").zip()), (".env", b"PATH_PREFIX=/second\n")]);
    until("the change is live", async || answers(&gateway, "second").await.then_some(())).await;
    kubernetes.delete("acme");
    gateway.until_gone("acme").await;
    kubernetes.apply_labelled("beta", &[("tenant.yaml", &tenant("beta").yaml())], "false");
    gateway.until_gone("beta").await;
    assert_eq!(fs::read_dir(&copies).expect("listed").count(), 0, "nothing of a Secret is left");
    assert_eq!(kubernetes.lists_and_pages(), (1, 1), "all of this came by events");
}

#[tokio::test]
async fn while_the_api_is_away_or_forgets_or_breaks_off_tenants_go_on_and_nothing_is_missed() {
    let (backend, kubernetes) = (FakeBackend::start().await, FakeKubernetes::start().await);
    let yaml = |name: &str| Tenant::new(name, &backend).yaml();
    let names: Vec<String> = (0..60).map(|number| format!("t{number:02}")).collect();
    names.iter().for_each(|name| kubernetes.apply(name, &[("tenant.yaml", &yaml(name))]));
    let gateway = setup(&kubernetes).start().await;
    gateway.until_state("t59", "serving").await;
    assert_eq!(kubernetes.lists_and_pages(), (1, 2));

    kubernetes.go_away();
    connected(&gateway, 0).await;
    kubernetes.delete("t00");
    kubernetes.apply("new", &[("tenant.yaml", &yaml("new"))]);
    kubernetes.forget_events();
    assert!(answers(&gateway, "t00").await && answers(&gateway, "t59").await);
    // A list that breaks off after its first page removes nothing.
    kubernetes.break_pages(Some(500));
    kubernetes.come_back();
    let (before, _) = kubernetes.lists_and_pages();
    until("lists broke off", async || (kubernetes.lists_and_pages().0 > before + 1).then_some(())).await;
    assert!(answers(&gateway, "t00").await && answers(&gateway, "t59").await);
    kubernetes.break_pages(None);
    gateway.until_gone("t00").await;
    gateway.until_state("new", "serving").await;
    connected(&gateway, 1).await;
    assert!(answers(&gateway, "t59").await);

    // A watch that is cut goes on; one whose events are forgotten is told so, and lists again.
    kubernetes.cut();
    kubernetes.delete("t01");
    gateway.until_gone("t01").await;
    kubernetes.apply("late", &[("tenant.yaml", &yaml("late"))]);
    gateway.until_state("late", "serving").await;
    assert!(gateway.output().contains("tenants go on as they are"), "{}", gateway.output());
}

#[tokio::test]
async fn a_bad_secret_is_named_with_its_key_and_harms_no_other() {
    let (backend, kubernetes) = (FakeBackend::start().await, FakeKubernetes::start().await);
    let tenant = |name: &str| Tenant::new(name, &backend);
    let good = tenant("acme").yaml();
    kubernetes.apply("acme", &[("tenant.yaml", &good)]);
    kubernetes.apply("broken.zip", &[("tenant.yaml", &good)]);
    kubernetes.apply("broken", &[("tenant.yaml", b"search_url: nowhere\n")]);
    kubernetes.apply("twin", &[("tenant.yaml", &tenant("twin").with("name: acme").yaml())]);
    let large = vec![b'x'; 800 << 10];
    kubernetes.apply("empty", &[("notes.txt", b"nothing")]);
    let gateway = setup(&kubernetes).start().await;
    gateway.until_state("acme", "serving").await;

    let broken = gateway.until_state("broken", "rejected").await;
    let places: Vec<_> = broken["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["location"]["file"].as_str())
        .collect();
    assert!(places.contains(&"secret/broken/tenant.yaml"), "{broken}");
    let twin = gateway.until_state("twin", "rejected").await;
    assert!(twin.to_string().contains("acme"), "{twin}");
    assert!(gateway.until_state("empty", "rejected").await.to_string().contains("secret/empty"));
    assert!(
        gateway.output().contains("this Secret is no tenant") && gateway.status("broken.zip").await.is_none()
    );

    let changed = tenant("acme").with("description: Large").yaml();
    kubernetes.apply("acme", &[("tenant.yaml", &changed), ("notes.txt", &large)]);
    let full = until("it is told", async || {
        let status = gateway.status("acme").await?;
        status.to_string().contains("secret-nearly-full").then_some(status)
    })
    .await;
    assert!(finding(&full, "secret-nearly-full").to_string().contains("tenantd slim"), "{full}");
    let bad = tenant("acme").with("deadline: never").yaml();
    kubernetes.apply("acme", &[("tenant.yaml", &bad)]);
    let stale = gateway.until_state("acme", "stale").await;
    assert!(stale.to_string().contains("secret/acme/tenant.yaml"), "{stale}");
    assert!(answers(&gateway, "acme").await, "the last good revision serves on");

    let refused = tenants(&gateway, &["remove", "acme"]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("kubectl delete secret acme"), "{refused:?}");
}

#[tokio::test]
async fn a_start_waits_for_the_secrets_or_serves_the_copies_of_before() {
    let (backend, kubernetes) = (FakeBackend::start().await, FakeKubernetes::start().await);
    kubernetes.apply("acme", &[("tenant.yaml", &Tenant::new("acme", &backend).yaml())]);
    kubernetes.go_away();
    let mut gateway = setup(&kubernetes).start_unready();
    until("it said so", async || gateway.output().contains("API of Kubernetes").then_some(())).await;
    assert!(!gateway.is_ready_file_written(), "no tenant was read yet");
    kubernetes.come_back();
    gateway = gateway.ready().await;
    gateway.until_state("acme", "serving").await;

    kubernetes.go_away();
    let gateway = gateway.kill_and_restart().await;
    gateway.until_state("acme", "serving").await;
    assert!(answers(&gateway, "acme").await && gateway.output().contains("from the copies of their Secrets"));
}

#[tokio::test]
async fn without_a_cluster_the_start_is_refused_and_says_what_to_do() {
    let said = Setup::new().flag("--tenants-from", "kubernetes").refusal().await;
    assert!(said.contains("no cluster is known") && said.contains("automountServiceAccountToken"), "{said}");
}

/// A real API server, if there is one.
struct RealCluster {
    kubeconfig: String,
    folder: tempfile::TempDir,
}

impl RealCluster {
    fn find() -> Option<Self> {
        let Ok(kubeconfig) = std::env::var("TENANTD_TEST_KUBECONFIG") else {
            println!(
                "skipped: TENANTD_TEST_KUBECONFIG names no cluster (scripts/kubernetes-api.sh starts one)"
            );
            return None;
        };
        Some(Self { kubeconfig, folder: tempfile::tempdir().expect("a folder") })
    }

    fn try_kubectl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("kubectl");
        command.args(["--kubeconfig", &self.kubeconfig]).args(arguments).output().expect("kubectl runs")
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.try_kubectl(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Writes a file, and returns its path.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let file = self.folder.path().join(name);
        fs::write(&file, content).expect("written");
        file.display().to_string()
    }

    /// Makes the Secret of a tenant, in place of an earlier one.
    fn apply_tenant(&self, name: &str, prefix: &str, backend: &FakeBackend) {
        let export = self.write("export.zip", Tenant::new(name, backend).zip());
        let env = self.write("env", format!("PATH_PREFIX={prefix}\n"));
        self.kubectl(&["delete", "secret", name, "--ignore-not-found"]);
        let from = [format!("--from-file=export.zip={export}"), format!("--from-file=.env={env}")];
        self.kubectl(&["create", "secret", "generic", name, &from[0], &from[1]]);
        self.kubectl(&["label", "secret", name, "tenantd.io/tenant=true"]);
    }

    /// Begins a gateway of this kubeconfig.
    fn setup(&self, kubeconfig: &str) -> Setup {
        let setup = Setup::new().flag("--tenants-from", "kubernetes");
        setup.variable("KUBECONFIG", kubeconfig)
    }
}

#[tokio::test]
async fn secrets_of_a_real_cluster_are_tenants() {
    let Some(cluster) = RealCluster::find() else { return };
    let backend = FakeBackend::start().await;
    cluster.apply_tenant("acme", "/first", &backend);
    let gateway = cluster.setup(&cluster.kubeconfig).start().await;
    gateway.until_state("acme", "serving").await;
    assert!(answers(&gateway, "first").await);
    cluster.apply_tenant("acme", "/second", &backend);
    until("the change is live", async || answers(&gateway, "second").await.then_some(())).await;
    cluster.apply_tenant("beta", "/beta", &backend);
    gateway.until_state("beta", "serving").await;
    cluster.kubectl(&["label", "secret", "beta", "tenantd.io/tenant-"]);
    gateway.until_gone("beta").await;
    cluster.kubectl(&["delete", "secret", "acme", "beta"]);
    gateway.until_gone("acme").await;
}

/// The role that is shipped for the gateway, with its account and binding.
const SHIPPED_ROLE: &str = "deploy/kubernetes/overlays/cluster/tenants.yaml";

#[tokio::test]
async fn the_shipped_role_is_enough_and_each_right_that_is_missing_is_named() {
    let Some(cluster) = RealCluster::find() else { return };
    let backend = FakeBackend::start().await;
    let role = fs::read_to_string(SHIPPED_ROLE).expect("it is shipped");
    let without_watch = role.replace("verbs: [list, watch]", "verbs: [list]");
    assert_ne!(without_watch, role, "the role has these verbs: {role}");
    cluster.apply_tenant("carol", "/carol", &backend);
    cluster.kubectl(&["apply", "--filename", SHIPPED_ROLE]);
    cluster.kubectl(&["delete", "rolebinding", "tursio-mcp-tenants"]);
    // A kubeconfig of the gateway's own account.
    let token = cluster.kubectl(&["create", "token", "tursio-mcp"]);
    let own = fs::read_to_string(&cluster.kubeconfig).expect("read").replace("administrator-token", &token);
    let own = cluster.write("kubeconfig", own);
    let gateway = cluster.setup(&own).start_unready();
    let says = async |words: &str| {
        until(words, async || gateway.output().contains(words).then_some(())).await;
    };
    says("cannot list resource").await;
    let output = gateway.output();
    assert!(output.contains("system:serviceaccount:tursio-mcp:tursio-mcp"), "{output}");
    assert!(output.contains("Grant it the verbs list and watch for secrets"), "{output}");
    let role_file = cluster.write("role.yaml", without_watch);
    cluster.kubectl(&["apply", "--filename", &role_file]);
    says("cannot watch resource").await;
    cluster.kubectl(&["apply", "--filename", SHIPPED_ROLE]);
    let gateway = gateway.ready().await;
    gateway.until_state("carol", "serving").await;
    connected(&gateway, 1).await;
    cluster.kubectl(&["delete", "secret", "carol"]);
    gateway.until_gone("carol").await;

    let account = "--as=system:serviceaccount:tursio-mcp:tursio-mcp";
    let may = |verb: &str, what: &str| {
        let answer = cluster.try_kubectl(&["auth", "can-i", verb, what, account]);
        String::from_utf8_lossy(&answer.stdout).trim() == "yes"
    };
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];
    assert_eq!(verbs.map(|verb| may(verb, "secrets")), verbs.map(|verb| ["list", "watch"].contains(&verb)));
    assert!(!may("list", "configmaps") && !may("list", "pods"));
    let elsewhere = cluster.try_kubectl(&["auth", "can-i", "list", "secrets", account, "-n", "default"]);
    assert_eq!(String::from_utf8_lossy(&elsewhere.stdout).trim(), "no");
    cluster.kubectl(&["delete", "--filename", SHIPPED_ROLE]);
}

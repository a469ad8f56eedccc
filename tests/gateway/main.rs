//! Black-box tests of the gateway: the real binary with real folders, backends and connections.
//!
//! Each test starts its own gateway on free loopback ports and stops it at the end. The output of
//! every gateway is searched for the secrets of its tenants, see [`harness::secret`].
//!
//! # Index
//!
//! Numbers are those of "Invariants" in `ARCHITECTURE.md`; where two invariants share a number, a
//! word tells them apart. Modules without a number prove a capability.
//!
//! - [`access`]: 3; an API key opens its own tenant only; an unusable guard closes the tenant
//! - [`acme`]: certificates from an ACME CA (RFC 8555)
//!   - `issuance`: names and addresses, both challenges, account binding, profiles, restarts
//!   - `renewal`: renewal by schedule and ARI (RFC 9773), without a lost handshake or connection
//!   - `faults`: 1, 7, 9; CAs that are dead, hang, lie or limit rates; a gateway that crash-loops
//!   - `operator`: `tenantd certs`, key permissions, read-only folders, `certs doctor`
//!   - `figures`: how long issuance and a start take (printed, not asserted)
//!   - `pebble`, `front`, `visitor`: the CA, a proxy in front of it and a TLS client (harness)
//! - [`admin`]: health, metrics and the API of the admin listener, and who may reach it
//! - [`audit`]: the audit as operators read it
//! - [`admin_auth`]: who may use the admin listener: tokens, roles, sessions, browsers
//!   - `tls`: its certificate from files
//!   - `verbs`: every verb that talks to it, with TLS and a token
//! - [`check`]: `tenantd check`, with and without `--live`
//! - [`cluster_figures`]: 3; what many tenants and each change cost the database of several gateways
//! - [`cluster_proof`]: several gateways on one database, while everything is killed, frozen and cut off
//! - [`console`]: the console: its pages, events, and what they never contain
//!   - `audit`, `operations`: the audit's pages; approval, alerts, logins, waiting settings
//! - [`cluster_tenants`]: tenants on several gateways: what is in force where, and common orders
//! - [`command_line`]: what the other verbs print, and their exit codes
//! - [`demo`]: `tenantd demo`: everything it prints works when pasted into a shell
//! - [`doctor`]: `tenantd doctor` names what is broken, and what to do
//!   - `machine`: the gateway, its files, folders and ports, its certificate, backend and login
//!   - `proxies`: each way of a proxy to break what a client sends
//!   - `worlds`: networks, disks, users, certificates and states that are broken
//! - [`entra`]: 1, 3; an Entra outage ends no session; a session that Entra ends, ends here
//! - [`hold`]: 3; changes of what the model reads wait for approval, and keep no revoked key alive
//! - [`hot_life`]: 4, 5; files change in every way, and the gateway ends where a cold start would
//!   - `clock`: 8; jumps of the wall clock change nothing
//!   - `drained`: requests in flight on a revision that is replaced or removed
//!   - `folder`: 3, 4; editors, copies, symlinks, mounts, and folders that are replaced
//!   - `killed`: 4; SIGKILL at 200 moments loses nothing that was acknowledged
//!   - `load`: 1, 5; 1000 changes cost other tenants no call and no byte
//!   - `property`: 4, 5; random sequences of file operations, compared with a cold start
//!   - `revocation`: 3; a removed API key ends its calls and streams, and no others
//!   - `rotation`: 3; secrets in files: rotation, deletion, unusable contents
//!   - `scarce`: 1, 9; a full disk, a read-only folder, an unreadable file
//!   - `life`: a reconciler without sockets (harness)
//! - [`hot_load`]: 1, 4, 5; files are added, changed and deleted while the gateway serves
//! - [`kubernetes`]: 3, 4, 5; labelled Secrets are tenants, whatever becomes of the API
//! - [`limits`]: 7; size caps, rates, deadlines, connection counts and file descriptors
//! - [`log`]: 7, 9; a log that cannot be written or read stops nothing
//! - [`login`]: 3; a client finds, registers at and logs in to a tenant
//!   - `attacks`: forged consents, callbacks, redirect URIs, client names and floods are refused
//!   - `clients`: known clients log in, each with its own registration, redirects and scopes
//!   - `discovery`: metadata (RFC 8414, RFC 9728) under every path that clients try
//!   - `isolation`: 1, 2; no credential or artefact of one tenant is accepted at another
//!   - `operators`: 3; rules on who may log in, static clients, blocked clients
//!   - `rust_sdk`: the MCP SDK for Rust logs in
//! - [`migrate`]: an old installation becomes tenants that answer where they answered before
//!   - `fixtures`: installations as the vendor's guide has them (harness)
//! - [`monitoring`]: each tenant's counters, breakers and secrets in `/metrics`
//! - [`neighbours`]: 1, 7, 9; trouble at one tenant (hang, failure, flood, junk) harms no other
//!   - `answers`: 1, 7; large answers and contexts of backends
//!   - `claims`: 10 (claims); names, prefixes and hosts stay with their holder
//!   - `edge`: 1, 7; withheld bodies, unread answers, idle connections, log and audit floods
//!   - `files`: 1, 6, 7; hostile archives, file names and symlinks in the tenants folder
//!   - `grants`: 3; a grant ends with its tenant's life, directory, app, or the account's admission
//!   - `logins`: 1, 7; floods of assertions, client documents, pending and begun logins
//!   - `portal`: 1, 7; tenants behind one portal, proxy or name server
//!   - `rights`: 10 (rights), 3; what a caller may not call it cannot read; every read is audited
//! - [`notify`]: 1, 7; trouble is told once each way; targets that fail, hang and lie hold up nobody
//!   - `kinds`: each kind of trouble, by really breaking the thing
//! - [`overlays`]: 3; an overlay whose name does not quite match its export closes that export
//! - [`paths`]: 2; no spelling of a path reaches another tenant
//! - [`peers`]: real MCP clients, the conformance suites, a browser and a TLS scanner
//!   - `access`, `calls`, `changes`, `waiting`, `login`: what each client library does
//!   - `authorization`, `conformance`, `inspector`: the suites and the inspector
//!   - `balanced`: the clients and the suites, each request at another of three gateways
//!   - `prometheus`: the shipped rules fire, and every query of the dashboard is answered
//!   - `doctor_traefik`: what the doctor prints for Traefik, applied to a real one
//!   - `proxies`: the SDKs log in behind NGINX, Traefik and the paths of an Application Gateway
//!   - `mcp_remote`, `browser`, `scanner`: `mcp-remote`, Chromium and `testssl`
//!   - `cache`, `entra`, `library`, `script`, `stage`: how peers are found and driven (harness)
//! - [`proxied`]: 3; forwarded headers of trusted proxies, probes, and what they change
//! - [`restarts`]: 9; what the service manager is told, its watchdog, restarts under load
//! - [`run`]: `tenantd run` and `container`: the vendor's lines, variables, unit and errors
//! - [`samples`]: 1, 7; every shape of a vendor export is served, hostile archives are rejected
//! - [`serving`]: an export answers MCP clients of both protocol eras
//! - [`shutdown`]: 9; drain, its deadline, a second signal, SIGKILL
//! - [`sighup`]: settings that change without a restart, and those that wait for one
//! - [`state`]: 3, 9, 10 (claims); the state folder: lock, damage, full disk, rollback, pause
//! - [`streams`]: 7; slow answers, progress, cancellation, change notifications
//! - [`support_bundle`]: 6; the archive for whoever helps has no secret in it
//! - [`tls`]: certificates that are self-signed or read from files
//! - [`tokens`]: 3, 6, 10 (rights); access tokens: challenges, revocation, rules, keys, audit
//! - [`mod@tracing`]: spans of calls, sent to an OTLP receiver

mod harness;

mod access;
mod acme;
mod admin;
mod admin_auth;
mod audit;
mod audit_sinks;
mod check;
mod cluster;
mod cluster_document;
mod cluster_figures;
mod cluster_proof;
mod cluster_tenants;
mod command_line;
mod console;
mod database_failures;
mod database_refusals;
mod demo;
mod doctor;
mod entra;
mod hold;
mod hot_life;
mod hot_load;
mod kubernetes;
mod limits;
mod log;
mod login;
mod migrate;
mod monitoring;
mod neighbours;
mod notify;
mod overlays;
mod paths;
mod peers;
mod postgres;
mod proxied;
mod restarts;
mod run;
mod samples;
mod serving;
mod shutdown;
mod sighup;
mod start_without_database;
mod state;
mod streams;
mod support_bundle;
mod tls;
mod tokens;
mod tracing;
mod usage;

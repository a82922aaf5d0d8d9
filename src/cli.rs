//! What the command takes: subcommands with their flags and settings.

use clap::{Arg, ArgAction, Command};

use crate::settings::{Key, arguments};

/// What is logged.
const LOG: Key =
    Key::one("log", "PORTREEVE_LOG", "FILTER", Some("info"), "What is logged, for example info,proxy=debug");
/// How it is logged.
const LOG_FORMAT: Key =
    Key::one("log-format", "PORTREEVE_LOG_FORMAT", "FORMAT", Some("text"), "text or json");
/// Where a process tells about itself.
const STATUS_BIND: Key = Key::one(
    "status-bind",
    "PORTREEVE_STATUS_BIND",
    "ADDRESS:PORT",
    Some("127.0.0.1:9902"),
    "Where /healthz, /readyz, /metrics and /supervision are served, read-only",
);
/// The port of what is not for everybody.
const ADMIN_PORT: Key =
    Key::one("admin-port", "ROUTER_ADMIN_PORT", "PORT", Some("9901"), "The port of the admin address");
/// Where one proxy of several on a machine tells about itself.
const STATUS_SOCKET: Key = Key::one(
    "status-socket",
    "PORTREEVE_STATUS_SOCKET",
    "PATH",
    None,
    "A Unix socket that serves the same as --status-bind, of this one proxy alone, for `portreeve probe`",
);
/// Where the last good configuration is kept.
const STATE_DIR: Key = Key::one(
    "state-dir",
    "PORTREEVE_STATE_DIR",
    "DIR",
    None,
    "Where the last good configuration is kept, best in memory (tmpfs), and where the next proxy finds this one",
);
/// How many threads serve.
const WORKERS: Key = Key::one(
    "workers",
    "PORTREEVE_WORKERS",
    "N",
    Some("0"),
    "Threads that serve traffic; 0: one per usable core",
);

/// The settings of `portreeve controller`.
pub(crate) const CONTROLLER: &[Key] = &[
    Key::one(
        "kubeconfig",
        "KUBECONFIG",
        "FILE",
        None,
        "The cluster; without it the pod's own service account",
    ),
    Key::one(
        "namespace",
        "PORTREEVE_NAMESPACE",
        "NAMESPACE",
        Some("portreeve-system"),
        "Where Lease and CA are kept",
    ),
    Key::one("name", "POD_NAME", "NAME", None, "This replica's name, unique among the replicas"),
    Key::one("uid", "POD_UID", "UID", None, "This replica's pod uid"),
    Key::many(
        "proxy",
        "PORTREEVE_PROXIES",
        "NAME=HOST:PORT",
        "A proxy outside of the cluster; may be repeated",
    ),
    Key::one(
        "tls-dir",
        "PORTREEVE_TLS_DIR",
        "DIR",
        None,
        "tls.crt, tls.key and ca.crt of this controller; re-read when they change (portreeve certificates writes them)",
    ),
    Key::one(
        "admin-bind",
        "PORTREEVE_ADMIN_BIND",
        "ADDRESS",
        Some("127.0.0.1"),
        "Where /config and /reload are served, mutual TLS",
    ),
    ADMIN_PORT,
    Key::one(
        "enrol-bind",
        "PORTREEVE_ENROL_BIND",
        "ADDRESS:PORT",
        None,
        "Where proxies that are Pods get their identity by their token [default: nowhere]",
    ),
    STATUS_BIND,
    Key::one(
        "reconcile-interval-ms",
        "RECONCILE_INTERVAL_MS",
        "MS",
        Some("5000"),
        "How often all is looked at again though nothing has changed; changes never wait for it",
    ),
    LOG,
    LOG_FORMAT,
];

/// The settings of `portreeve proxy`.
pub(crate) const PROXY: &[Key] = &[
    Key::one(
        "name",
        "PORTREEVE_PROXY_NAME",
        "NAME",
        None,
        "This proxy's identity: its pod's uid, or the name that controllers know it by",
    ),
    Key::one(
        "node-address",
        "PORTREEVE_NODE_ADDRESS",
        "IP",
        None,
        "The address that listeners of the provider `node` bind",
    ),
    Key::one(
        "tls-dir",
        "PORTREEVE_TLS_DIR",
        "DIR",
        None,
        "tls.crt, tls.key and ca.crt of this proxy; re-read when they change",
    ),
    Key::many(
        "enrol-at",
        "PORTREEVE_ENROL_AT",
        "HOST:PORT",
        "A controller that gives this proxy its identity, written to tls-dir; may be repeated",
    ),
    Key::one("token-file", "PORTREEVE_TOKEN_FILE", "FILE", None, "The token that is shown there"),
    Key::one("ca-file", "PORTREEVE_CA_FILE", "FILE", None, "Whom controllers' certificates come from"),
    Key::one(
        "admin-bind",
        "PORTREEVE_ADMIN_BIND",
        "ADDRESS",
        None,
        "Where pushes are taken, mutual TLS [default: the node address]",
    ),
    ADMIN_PORT,
    STATUS_BIND,
    STATUS_SOCKET,
    STATE_DIR,
    WORKERS,
    LOG,
    LOG_FORMAT,
];

/// The settings of `portreeve probe`.
pub(crate) const PROBE: &[Key] = &[STATUS_SOCKET];

/// The settings of `portreeve standalone`.
pub(crate) const STANDALONE: &[Key] = &[
    Key::many("file", "PORTREEVE_FILES", "PATH", "A manifest or a folder of manifests; may be repeated"),
    Key::one(
        "address",
        "PORTREEVE_ADDRESS",
        "IP",
        Some("127.0.0.1"),
        "The address of Gateways that name none",
    ),
    STATUS_BIND,
    STATE_DIR,
    WORKERS,
    LOG,
    LOG_FORMAT,
];

/// The settings of `portreeve certificates`.
pub(crate) const CERTIFICATES: &[Key] = &[
    Key::one(
        "tls-dir",
        "PORTREEVE_TLS_DIR",
        "DIR",
        None,
        "Where the CA is kept and one folder per identity is written",
    ),
    Key::many("proxy", "PORTREEVE_PROXIES", "NAME", "A proxy to issue for; may be repeated"),
    Key::one(
        "hours",
        "PORTREEVE_CERTIFICATE_HOURS",
        "HOURS",
        Some("24"),
        "How long what is issued is valid, at most a year",
    ),
];

/// The settings of `portreeve own-addresses`.
pub(crate) const OWN_ADDRESSES: &[Key] = &[Key::many(
    "range",
    "PORTREEVE_POOL",
    "CIDR",
    "A range of the pool, such as 192.0.2.0/26; may be repeated",
)];

/// The flag of `own-addresses` that changes nothing.
pub(crate) const CHECK: &str = "check";

/// What it all is.
const ABOUT: &str = "The edge of a Kubernetes cluster without a cloud load balancer: proxies on the nodes serve what\n\
                     Gateways and routes say, controllers tell them.";

/// The whole command line.
pub(crate) fn command() -> Command {
    let command = Command::new("portreeve")
        .version(env!("CARGO_PKG_VERSION"))
        .about("The edge of a Kubernetes cluster without a cloud load balancer")
        .long_about(ABOUT)
        .subcommand_required(true)
        .arg_required_else_help(true);
    // Both need the Kubernetes API in memory, which an image of Portreeve lacks.
    let command = if cfg!(feature = "demo") {
        let about = format!("{ABOUT} Try `portreeve demo` first: it needs nothing.");
        command.long_about(about).subcommand(demo()).subcommand(standalone())
    } else {
        command
    };
    command
        .subcommand(arguments(
            Command::new("controller")
                .about("Watch a cluster, tell the proxies; several replicas elect a leader"),
            CONTROLLER,
        ))
        .subcommand(arguments(Command::new("proxy").about("Serve traffic as the controllers say"), PROXY))
        .subcommand(probe())
        .subcommand(arguments(
            Command::new("certificates")
                .about("Issue the identities of controllers and proxies outside of a cluster"),
            CERTIFICATES,
        ))
        .subcommand(own_addresses())
        .subcommand(
            Command::new("completion").about("Print a shell's completion script").arg(
                Arg::new("shell").required(true).value_parser(clap::value_parser!(clap_complete::Shell)),
            ),
        )
}

fn standalone() -> Command {
    let command =
        Command::new("standalone").about("Serve manifests from files, without Kubernetes").after_help(
            "Files are watched. What is wrong in one is named by file, object and field; the rest goes on.",
        );
    arguments(command, STANDALONE)
}

fn probe() -> Command {
    let check = Arg::new("check").required(true).value_parser(["healthz", "readyz"]);
    let probe = Command::new("probe")
        .about("Ask a proxy of this machine whether it is healthy or ready; exit 0 only if it is")
        .arg(check.help("What to ask"));
    arguments(probe, PROBE)
}

fn own_addresses() -> Command {
    let check = Arg::new(CHECK).long(CHECK).action(ArgAction::SetTrue);
    let command = Command::new("own-addresses")
        .about("Make the addresses of a pool this node's own, so that proxies can bind them, until it is asked to end")
        .after_help("What a run that was killed has left behind is given up by the next one.")
        .arg(check.help("Change nothing; exit 0 only if all of them are this node's own"));
    arguments(command, OWN_ADDRESSES)
}

fn demo() -> Command {
    Command::new("demo")
        .about("Show everything at work on this machine alone: no cluster, no privileges")
        .arg(Arg::new("once").long("once").action(ArgAction::SetTrue).help(
            "Go through all steps, kill the leader and a proxy on the way, report, and end; exit 0 only if every step held",
        ))
        .arg(
            Arg::new("output")
                .short('o')
                .long("output")
                .value_name("FORMAT")
                .value_parser(["text", "json"])
                .default_value("text")
                .help("How --once reports"),
        )
}

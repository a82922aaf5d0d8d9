//! The enroller against controllers on real sockets: when it asks, whom it trusts, what it leaves on disk.

use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::http::HeaderMap;
use axum::response::Json;
use axum::routing::post;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use proxy_config::wire::Enrolled;
use rcgen::{BasicConstraints, CertificateSigningRequestParams, IsCa, Issuer, SanType};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

const OURS: &str = "urn:portreeve:controller";

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Arc<Self> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Arc::new(Self { issuer: Issuer::from_ca_cert_pem(&pem, key).unwrap(), pem })
    }

    fn server(&self, uri: &str) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth();
        Arc::new(config.with_single_cert(vec![leaf.der().clone()], key).unwrap())
    }

    fn sign(&self, request: &str, life: Duration) -> String {
        let mut request = CertificateSigningRequestParams::from_pem(request).unwrap();
        request.params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        request.params.not_after = (SystemTime::now() + life).into();
        request.signed_by(&self.issuer).unwrap().pem()
    }
}

/// A controller as seen from a proxy; the tokens that it was shown.
#[derive(Clone)]
struct Controller {
    address: SocketAddr,
    tokens: Arc<Mutex<Vec<String>>>,
}

impl Controller {
    async fn start(authority: &Arc<Authority>, uri: &str, life: Duration) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let controller = Self { address: socket.local_addr().unwrap(), tokens: Arc::default() };
        let (tokens, signer) = (controller.tokens.clone(), authority.clone());
        let enrol = move |headers: HeaderMap, request: String| async move {
            tokens.lock().unwrap().push(headers["authorization"].to_str().unwrap().to_owned());
            Json(Enrolled { chain: signer.sign(&request, life), authorities: signer.pem.clone() })
        };
        let router = Router::new().route("/enrol", post(enrol));
        let tls = TlsAcceptor::from(authority.server(uri));
        tokio::spawn(async move {
            loop {
                let (stream, _) = socket.accept().await.unwrap();
                let (tls, router) = (tls.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let server = hyper::server::conn::http1::Builder::new();
                    let service = TowerToHyperService::new(router);
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        controller
    }

    fn asked(&self) -> usize {
        self.tokens.lock().unwrap().len()
    }
}

/// What a Pod is given.
struct Pod {
    folder: TempDir,
    args: Args,
}

impl Pod {
    fn new(authority: &Authority, controllers: &[SocketAddr]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("token"), "secret-token\n").unwrap();
        fs::write(path("authorities"), &authority.pem).unwrap();
        let enrolment = Enrolment {
            controllers: controllers.iter().map(ToString::to_string).collect(),
            token: path("token"),
            authorities: path("authorities"),
            folder: path("identity"),
        };
        Self { args: Args { identity: "p".into(), enrolment, myself: Address::new() }, folder }
    }

    async fn look(&self) -> Result<bool, EnrolmentError> {
        look(&self.args, None).await
    }
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_certificate_is_got_once_and_again_when_two_thirds_of_its_life_are_over() {
    let authority = Authority::new();
    let controller = Controller::start(&authority, OURS, DAY).await;
    let pod = Pod::new(&authority, &[controller.address]);
    assert!(pod.look().await.unwrap());
    assert!(!pod.look().await.unwrap(), "it has one that lasts");
    assert_eq!(*controller.tokens.lock().unwrap(), ["Bearer secret-token"]);
    let held = Files::new(&pod.args.enrolment.folder).read().unwrap();
    crate::admin::identity::server_config(&held).unwrap();
    let (start, later) = (SystemTime::now(), |share: f64| SystemTime::now() + DAY.mul_f64(share));
    assert!(lasts(&held.chain, start) && lasts(&held.chain, later(0.65)) && !lasts(&held.chain, later(0.68)));
}

#[tokio::test]
async fn a_token_is_shown_to_controllers_alone_and_any_of_them_will_do() {
    let (authority, other) = (Authority::new(), Authority::new());
    let stranger = Controller::start(&other, OURS, DAY).await;
    let proxy = Controller::start(&authority, "urn:portreeve:proxy:q", DAY).await;
    let pod = Pod::new(&authority, &[stranger.address, proxy.address]);
    let refused = pod.look().await.unwrap_err().to_string();
    assert!(refused.contains(&stranger.address.to_string()), "{refused}");
    assert_eq!((stranger.asked(), proxy.asked()), (0, 0));
    let controller = Controller::start(&authority, OURS, DAY).await;
    let pod = Pod::new(&authority, &[stranger.address, controller.address]);
    assert!(pod.look().await.unwrap());
}

#[tokio::test]
async fn other_authorities_are_a_reason_to_ask_again_but_not_at_once() {
    let (old, new) = (Authority::new(), Authority::new());
    let controllers =
        [Controller::start(&old, OURS, DAY).await.address, Controller::start(&new, OURS, DAY).await.address];
    let pod = Pod::new(&old, &controllers);
    assert!(pod.look().await.unwrap());
    fs::write(pod.folder.path().join("authorities"), &new.pem).unwrap();
    assert!(!look(&pod.args, Some(SystemTime::now())).await.unwrap());
    assert!(pod.look().await.unwrap());
    assert_eq!(*Files::new(&pod.args.enrolment.folder).read().unwrap().authorities, new.pem);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let authority = Authority::new();
    let pod = Pod::new(&authority, &[]);
    fs::remove_file(pod.folder.path().join("token")).unwrap();
    assert!(pod.look().await.unwrap_err().to_string().contains("/token"));
    fs::remove_file(pod.folder.path().join("authorities")).unwrap();
    assert!(pod.look().await.unwrap_err().to_string().contains("/authorities"));
}

#[tokio::test]
async fn the_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let authority = Authority::new();
    let controller = Controller::start(&authority, OURS, DAY).await;
    let pod = Pod::new(&authority, &[controller.address]);
    pod.look().await.unwrap();
    let folder = &pod.args.enrolment.folder;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(folder), mode(&folder.join("tls.key"))), (0o700, 0o600));
}

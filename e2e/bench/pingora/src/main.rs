//! The least that Pingora needs to forward everything to one backend: one thread, connections reused.
//! usage: peer-pingora LISTEN_PORT BACKEND_PORT

use async_trait::async_trait;
use pingora::prelude::*;
use pingora::server::configuration::ServerConf;

struct Forward {
    backend: String,
}

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.backend.as_str(), false, String::new())))
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(backend)) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: peer-pingora LISTEN_PORT BACKEND_PORT");
        std::process::exit(64);
    };
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 512, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let forward = Forward { backend: format!("127.0.0.1:{backend}") };
    let mut service = http_proxy_service(&server.configuration, forward);
    service.add_tcp(&format!("127.0.0.1:{listen}"));
    server.add_service(service);
    server.run_forever();
}

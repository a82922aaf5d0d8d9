//! Owns: how a controller's own ports are bound, beside the tree: a restart of who serves them refuses nobody.
//! Called where the tree is made. Refuses to know what is served there.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use rustix::io::Errno;

use super::RunError;

/// Binds a port, if one is wanted.
pub(super) fn bind(
    what: &'static str,
    address: Option<SocketAddr>,
) -> Result<Option<Arc<TcpListener>>, RunError> {
    let Some(address) = address else { return Ok(None) };
    let bound = TcpListener::bind(address).or_else(|error| match of_ipv4(address, &error) {
        Some(address) => TcpListener::bind(address),
        None => Err(error),
    });
    let bound = bound.and_then(|socket| {
        socket.set_nonblocking(true)?;
        Ok(Some(Arc::new(socket)))
    });
    bound.map_err(|source| RunError::Bind { what, address, source })
}

/// All addresses of IPv4, where those of both families were asked for and the kernel has no IPv6.
fn of_ipv4(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    let has_none = Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT);
    (has_none && address.ip() == Ipv6Addr::UNSPECIFIED)
        .then(|| (Ipv4Addr::UNSPECIFIED, address.port()).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn all_addresses_are_those_of_both_families() {
        let socket = bind("test", Some((Ipv6Addr::UNSPECIFIED, 0).into())).unwrap().unwrap();
        let port = socket.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
    }

    #[test]
    fn a_kernel_without_ipv6_binds_those_of_ipv4() {
        let check = |address: &str, error: Errno, want: Option<&str>| {
            let want = want.map(|want| want.parse().unwrap());
            assert_eq!(of_ipv4(address.parse().unwrap(), &error.into()), want, "{address} {error}");
        };
        check("[::]:9902", Errno::AFNOSUPPORT, Some("0.0.0.0:9902"));
        check("[::]:9902", Errno::ADDRINUSE, None);
        check("[::1]:9902", Errno::AFNOSUPPORT, None);
        check("0.0.0.0:9902", Errno::AFNOSUPPORT, None);
    }
}

//! A name server for the proxies of a scene: it has the names that a test gives it, and no others.
//! Source: RFC 1035 section 4.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use cluster::Machine;
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// For how long an answer may be used, in seconds.
const TTL: u32 = 1;
/// Types of record.
const A: u16 = 1;
/// The length of a message's head.
const HEAD: usize = 12;

type Names = BTreeMap<String, Ipv4Addr>;

/// A name server; it ends when it is dropped.
pub struct NameServer {
    names: Arc<Mutex<Names>>,
    _task: AbortOnDropHandle<()>,
}

impl NameServer {
    /// Answers at port 53 of a machine.
    pub fn listen(machine: &Machine) -> Result<Self> {
        let at = SocketAddr::from((machine.address, 53));
        let socket = machine.namespace.enter(|| std::net::UdpSocket::bind(at).map_err(Into::into));
        let socket = socket.with_context(|| format!("listen on {at} in {}", machine.name))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let names = Arc::<Mutex<Names>>::default();
        let task = tokio::spawn(answer_all(socket, Arc::clone(&names)));
        Ok(Self { names, _task: AbortOnDropHandle::new(task) })
    }

    /// From now on `name` has this address alone.
    pub fn set(&self, name: &str, address: Ipv4Addr) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned(), address);
    }
}

async fn answer_all(socket: UdpSocket, names: Arc<Mutex<Names>>) {
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let answer = answer(&buffer[..length], &names.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(answer) = answer {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a question, if it is one.
fn answer(query: &[u8], names: &Names) -> Option<Vec<u8>> {
    let (mut labels, mut at) = (Vec::new(), HEAD);
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(query.get(at..at + length)?).ok()?.to_ascii_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
    let question = query.get(HEAD..at + 4)?;
    let known = names.get(&labels.join("."));
    let address = known.filter(|_| kind == A);
    // An answer, recursion was wanted and is available; 3: there is no such name.
    let flags: u16 = 0x8180 | if known.is_some() { 0 } else { 3 };
    let mut answer = query.get(..2)?.to_vec();
    for field in [flags, 1, u16::from(address.is_some()), 0, 0] {
        answer.extend(field.to_be_bytes());
    }
    answer.extend(question);
    if let Some(address) = address {
        // The name is the one of the question, the class is IN.
        for field in [0xc000 | u16::try_from(HEAD).ok()?, A, 1] {
            answer.extend(field.to_be_bytes());
        }
        answer.extend(TTL.to_be_bytes());
        answer.extend(4_u16.to_be_bytes());
        answer.extend(address.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for a name of a type, as a resolver sends it.
    fn question(name: &str, kind: u16) -> Vec<u8> {
        let mut query = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(u8::try_from(label.len()).expect("a label is short"));
            query.extend(label.as_bytes());
        }
        query.push(0);
        query.extend([kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
        query
    }

    #[test]
    fn a_name_has_its_address_and_others_are_not_there() {
        let names = Names::from([("a.example".to_owned(), Ipv4Addr::new(10, 0, 0, 7))]);
        let found = answer(&question("A.example", A), &names).expect("an answer");
        assert_eq!(found[..8], [7, 8, 0x81, 0x80, 0, 1, 0, 1]);
        assert_eq!(found[found.len() - 10..], [0, 0, 0, 1, 0, 4, 10, 0, 0, 7]);
        let other_type = answer(&question("a.example", 28), &names).expect("an answer");
        assert_eq!(other_type[2..8], [0x81, 0x80, 0, 1, 0, 0]);
        let missing = answer(&question("b.example", A), &names).expect("an answer");
        assert_eq!(missing[2..8], [0x81, 0x83, 0, 1, 0, 0]);
        assert_eq!(answer(&[1, 2, 3], &names), None);
    }
}

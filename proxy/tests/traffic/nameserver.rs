//! A name server on loopback that says what a test wants, over UDP.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, MessageType, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::rig::PATIENCE;

/// What it says of a name.
#[derive(Clone)]
pub enum Says {
    /// These addresses, for so many seconds.
    These(Vec<IpAddr>, u32),
    /// That it is another name for this one, for so many seconds, and what is said of that one.
    Alias(&'static str, u32),
    /// That it can't say.
    Failure,
    /// Nothing at all.
    Nothing,
}

#[derive(Default)]
struct Zone {
    says: HashMap<String, Says>,
    asked: HashMap<String, usize>,
}

/// It says of all other names that they do not exist.
pub struct NameServer {
    pub address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    _server: AbortOnDropHandle<()>,
}

impl NameServer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.34:0").await.unwrap();
        let (address, zone) = (socket.local_addr().unwrap(), Arc::<Mutex<Zone>>::default());
        let served = zone.clone();
        let server = tokio::spawn(async move {
            let mut bytes = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut bytes).await {
                let answer = answer(&bytes[..length], &mut served.lock().unwrap());
                if let Some(answer) = answer {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        Self { address, zone, _server: AbortOnDropHandle::new(server) }
    }

    pub fn say(&self, name: &str, says: Says) {
        self.zone.lock().unwrap().says.insert(name.to_owned(), says);
    }

    /// How many questions there were for a name.
    pub fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap().asked.get(name).copied().unwrap_or(0)
    }

    /// Waits until there were so many.
    pub async fn asked_again(&self, name: &str, times: usize) {
        let asked = async {
            while self.asked(name) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("it is asked");
    }
}

fn answer(question: &[u8], zone: &mut Zone) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(question).unwrap();
    let query = message.queries[0].clone();
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    *zone.asked.entry(name.clone()).or_default() += 1;
    message.metadata.message_type = MessageType::Response;
    message.metadata.recursion_available = true;
    let (mut owner, mut says) = (query.name().clone(), zone.says.get(&name));
    while let Some(Says::Alias(of, life)) = says {
        let of_name = Name::from_ascii(of).unwrap();
        message.add_answer(Record::from_rdata(owner, *life, RData::CNAME(CNAME(of_name.clone()))));
        (owner, says) = (of_name, zone.says.get(*of));
    }
    match says {
        None | Some(Says::Alias(..)) => message.metadata.response_code = ResponseCode::NXDomain,
        Some(Says::Failure) => message.metadata.response_code = ResponseCode::ServFail,
        Some(Says::Nothing) => return None,
        Some(Says::These(addresses, life)) => {
            for address in addresses {
                let data = match (query.query_type(), address) {
                    (RecordType::A, IpAddr::V4(address)) => RData::A(A(*address)),
                    (RecordType::AAAA, IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
                    _ => continue,
                };
                message.add_answer(Record::from_rdata(owner.clone(), *life, data));
            }
        }
    }
    Some(message.to_vec().unwrap())
}

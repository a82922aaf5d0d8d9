//! The resolver as an actor, under paused time, with answers from a script.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use futures_util::FutureExt as _;
use supervisor::{Fault, Intensity, Running, Strategy, branch, worker};

use super::names::Known;
use super::standing::{GONE_AFTER, GONE_RETRY, LAST_RETRY};
use super::*;

const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));
const TWO: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 2));
/// Longer than answers take here.
const A_MOMENT: Duration = Duration::from_millis(10);

/// What is answered for each name; what is not there fails.
type Script = Arc<Mutex<HashMap<&'static str, Family>>>;

struct Rig {
    args: Args,
    script: Script,
    questions: Arc<AtomicUsize>,
    running: Running,
}

impl Rig {
    async fn start() -> Self {
        let (script, questions) = (Script::default(), Arc::<AtomicUsize>::default());
        let lookup: Lookup = Arc::new({
            let (script, questions) = (script.clone(), questions.clone());
            move |name: Hostname| {
                questions.fetch_add(1, Relaxed);
                let said = script.lock().unwrap().get(&*name).cloned();
                let v4 = said.unwrap_or(Family::Failed("out of order".to_owned()));
                let v6 = match &v4 {
                    Family::Failed(why) => Family::Failed(why.clone()),
                    Family::Found(..) | Family::None => Family::None,
                };
                async move { Answer { v4, v6 } }.boxed()
            }
        });
        let args = Args {
            names: Names::default(),
            lookup,
            loopback_destinations: false,
            metrics: Metrics::new(1),
            myself: Address::new(),
        };
        let again = args.clone();
        let resolver = worker("resolver", &args.myself, move || (Resolver, again.clone()));
        let limit = Intensity::new(3, Duration::from_secs(60));
        let tree = branch("proxy", Strategy::OneForOne, limit, vec![resolver]);
        let running = supervisor::run(tree).await.unwrap();
        Self { args, script, questions, running }
    }

    fn say(&self, name: &'static str, addresses: &[IpAddr], seconds: u64) {
        let found = Family::Found(addresses.to_vec(), Duration::from_secs(seconds));
        self.script.lock().unwrap().insert(name, found);
    }

    async fn want(&self, names: &[&str]) {
        self.args.names.want(names.iter().map(|name| Hostname::from(*name)).collect());
        sleep(A_MOMENT).await;
    }

    fn known(&self) -> Known {
        Known::clone(&self.args.names.known().borrow())
    }

    fn questions(&self) -> usize {
        self.questions.load(Relaxed)
    }
}

fn known<const N: usize>(names: [(&str, &[IpAddr]); N]) -> Known {
    names.map(|(name, addresses)| (name.into(), addresses.into())).into()
}

#[tokio::test(start_paused = true)]
async fn a_name_is_asked_for_at_once_and_again_when_its_answer_has_lived() {
    let rig = Rig::start().await;
    rig.say("a", &[ONE], 60);
    rig.want(&["a"]).await;
    assert_eq!(rig.known(), known([("a", &[ONE])]));
    rig.say("a", &[TWO], 60);
    sleep(Duration::from_secs(59)).await;
    assert_eq!((rig.known(), rig.questions()), (known([("a", &[ONE])]), 1));
    sleep(Duration::from_secs(1)).await;
    assert_eq!((rig.known(), rig.questions()), (known([("a", &[TWO])]), 2));
    rig.want(&["a", "b"]).await;
    assert_eq!(rig.questions(), 3, "what is known is not asked for because something else is wanted");
    assert_eq!(rig.known(), known([("a", &[TWO]), ("b", &[])]), "that it was asked for in vain is known");
    rig.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_name_that_nobody_wants_is_forgotten_and_never_asked_for_again() {
    let rig = Rig::start().await;
    rig.say("a", &[ONE], 1);
    rig.want(&["a"]).await;
    rig.want(&[]).await;
    assert_eq!(rig.known(), Known::new());
    sleep(2 * LAST_RETRY).await;
    assert_eq!(rig.questions(), 1);
    rig.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_answer_goes_on_through_failures_and_a_restart_and_ends_when_the_name_is_gone() {
    let rig = Rig::start().await;
    rig.say("a", &[ONE], 1);
    rig.want(&["a"]).await;
    rig.script.lock().unwrap().clear();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(rig.known(), known([("a", &[ONE])]));
    rig.running.drill().strike(&["resolver"], Fault::Kill).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.known(), known([("a", &[ONE])]));
    rig.script.lock().unwrap().insert("a", Family::None);
    sleep(GONE_AFTER - GONE_RETRY).await;
    assert_eq!(rig.known(), known([("a", &[ONE])]));
    sleep(LAST_RETRY + 4 * GONE_RETRY).await;
    assert_eq!(rig.known(), known([("a", &[])]));
    rig.say("a", &[TWO], 1);
    sleep(GONE_RETRY + A_MOMENT).await;
    assert_eq!(rig.known(), known([("a", &[TWO])]));
    rig.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn forbidden_addresses_are_left_out_and_counted() {
    let rig = Rig::start().await;
    let all = ["169.254.169.254", "::ffff:127.0.0.1", "::ffff:198.51.100.2", "198.51.100.1"];
    rig.say("a", &all.map(|address| address.parse().unwrap()), 60);
    rig.want(&["a"]).await;
    assert_eq!(rig.known(), known([("a", &[ONE, TWO])]), "and IPv4 is IPv4 in whichever form");
    let shown = crate::metrics::text::render(&rig.args.metrics);
    for reason in ["link_local", "loopback"] {
        let line = format!("portreeve_dns_forbidden_addresses_total{{reason=\"{reason}\"}} 1");
        assert!(shown.contains(&line), "{shown}");
    }
    rig.say("b", &[[127, 0, 0, 1].into()], 60);
    rig.want(&["b"]).await;
    assert_eq!(rig.known(), known([("b", &[])]));
    rig.running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn no_more_names_are_resolved_than_may_be() {
    let rig = Rig::start().await;
    let names: Vec<String> = (0..MAX_NAMES + 5).map(|number| format!("{number:05}.example")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    rig.want(&names).await;
    assert_eq!((rig.known().len(), rig.questions()), (MAX_NAMES, MAX_NAMES));
    assert!(rig.args.names.are_known(), "nothing waits for the others");
    rig.running.stop().await.unwrap();
}

#[test]
fn an_address_of_this_host_is_forbidden_whatever_the_address_space_says_of_it() {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent. A host without a network has no such address.
    if socket.connect((ONE, 9)).is_err() {
        return;
    }
    let own = socket.local_addr().unwrap().ip();
    let life = Duration::from_secs(60);
    let answer = Answer { v4: Family::Found(vec![own, ONE], life), v6: Family::None };
    let (left, forbidden) = sift(answer, false);
    assert_eq!(left.v4, Family::Found(vec![ONE], life));
    assert_eq!(forbidden, BTreeMap::from([(own, Forbidden::OwnAddress)]));
}

//! The whole way once: start, ask, crash, restart, escalate, stop.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervisor::{
    Address, AskError, ChildState, Intensity, Refused, Strategy, branch, message_names, render, run, worker,
};
use tracing::Instrument as _;
use tracing_subscriber::util::SubscriberInitExt as _;

enum Msg {
    Echo(u32, RpcReplyPort<u32>),
    Crash,
    Sleep(Duration),
    Forget(RpcReplyPort<u32>),
    Span(RpcReplyPort<Option<&'static str>>),
}
message_names!(Msg { Echo, Crash, Sleep, Forget, Span });

struct Echo;

impl Actor for Echo {
    type Msg = Msg;
    type State = ();
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Msg>, (): ()) -> Result<(), ActorProcessingErr> {
        Ok(())
    }

    async fn handle(&self, _: ActorRef<Msg>, message: Msg, (): &mut ()) -> Result<(), ActorProcessingErr> {
        match message {
            // Whoever asked may wait no longer.
            Msg::Echo(n, reply) => drop(reply.send(n)),
            Msg::Crash => panic!("asked to"),
            Msg::Sleep(time) => tokio::time::sleep(time).await,
            Msg::Forget(reply) => drop(reply),
            Msg::Span(reply) => {
                let name = tracing::Span::current().metadata().map(tracing::Metadata::name);
                drop(reply.send(name));
            }
        }
        Ok(())
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_worker_is_restarted_and_its_address_stays() {
    let address = Address::new();
    assert_eq!(address.ask(SECOND, |r| Msg::Echo(0, r)).await, Err(AskError::Restarting));
    let tree = branch(
        "root",
        Strategy::OneForOne,
        Intensity::new(1, SECOND * 60),
        vec![branch(
            "inner",
            Strategy::RestForOne,
            Intensity::new(1, SECOND * 60),
            vec![worker("echo", &address, || (Echo, ()))],
        )],
    );
    assert_eq!(
        render(&tree),
        "root (one-for-one, 1 restarts in 60s)\n\
         └── inner (rest-for-one, 1 restarts in 60s)\n    \
             └── echo (stops in 5s)\n"
    );
    let running = run(tree).await.unwrap();
    assert_eq!(address.ask(SECOND, |r| Msg::Echo(7, r)).await, Ok(7));
    address.send(Msg::Crash).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(address.ask(SECOND, |r| Msg::Echo(8, r)).await, Ok(8));
    let echo = running.live.snapshot().at(&["inner", "echo"]).unwrap().clone();
    assert_eq!((echo.restarts, echo.state), (1, ChildState::Running));
    assert!(echo.last_error.unwrap().contains("asked to"));
    assert_eq!(echo.mailbox.unwrap().handled["Echo"].count, 2);

    // The second crash is one too many for `inner`; the root restarts it once.
    address.send(Msg::Crash).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(address.ask(SECOND, |r| Msg::Echo(9, r)).await, Ok(9));
    let inner = running.live.snapshot().at(&["inner"]).unwrap().clone();
    assert_eq!((inner.restarts, inner.state), (1, ChildState::Running));
    running.stop().await.unwrap();
    assert_eq!(address.ask(SECOND, |r| Msg::Echo(0, r)).await, Err(AskError::Restarting));
}

#[tokio::test(start_paused = true)]
async fn a_root_that_gives_up_says_why() {
    let address = Address::new();
    let tree = branch(
        "root",
        Strategy::OneForAll,
        Intensity::new(0, SECOND),
        vec![worker("echo", &address, || (Echo, ()))],
    );
    let running = run(tree).await.unwrap();
    address.send(Msg::Crash).unwrap();
    let end = running.stopped().await.unwrap_err();
    let text = end.cause.chain();
    assert!(text.contains("more than 0 restarts within 1s, last of child \"echo\""), "{text}");
    assert!(text.contains("asked to"), "{text}");
}

async fn running(address: &Address<Msg>) -> supervisor::Running {
    let limit = Intensity::new(1, SECOND);
    let echo = worker("echo", address, || (Echo, ()));
    run(branch("root", Strategy::OneForOne, limit, vec![echo])).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_full_mailbox_refuses_and_gives_the_message_back() {
    let address = Address::with_capacity(2);
    let running = running(&address).await;
    address.send(Msg::Sleep(SECOND)).unwrap();
    tokio::time::sleep(SECOND / 2).await;
    address.send(Msg::Sleep(SECOND)).unwrap();
    address.send(Msg::Sleep(SECOND)).unwrap();
    let refused = address.send(Msg::Sleep(7 * SECOND)).unwrap_err();
    assert!(matches!(refused, Refused::Full(Msg::Sleep(time)) if time == 7 * SECOND));
    tokio::time::sleep(SECOND / 4).await;
    let mailbox = address.mailbox();
    assert_eq!((mailbox.depth, mailbox.oldest_ms, mailbox.refused), (2, Some(250), 1));
    tokio::time::sleep(3 * SECOND).await;
    let mailbox = address.mailbox();
    assert_eq!((mailbox.depth, mailbox.oldest_ms), (0, None));
    let handled = mailbox.handled["Sleep"];
    assert_eq!((handled.count, handled.max_us), (3, 1_000_000));
    running.stop().await.unwrap();
    let refused = address.send(Msg::Crash).unwrap_err();
    assert!(matches!(refused, Refused::Restarting(Msg::Crash)));
}

#[tokio::test(start_paused = true)]
async fn a_question_ends_with_its_answer_its_deadline_or_its_worker() {
    let address = Address::new();
    let running = running(&address).await;
    assert_eq!(address.ask(SECOND, Msg::Forget).await, Err(AskError::Dropped));
    address.send(Msg::Sleep(2 * SECOND)).unwrap();
    assert_eq!(address.ask(SECOND, |r| Msg::Echo(1, r)).await, Err(AskError::Deadline(SECOND)));
    tokio::time::sleep(2 * SECOND).await;
    address.send(Msg::Crash).unwrap();
    let question = address.ask(SECOND, |r| Msg::Echo(1, r));
    assert_eq!(question.await, Err(AskError::Dropped), "lost with the instance");
    assert_eq!(address.mailbox().lost, 1);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_timer_sends_unless_it_is_dropped() {
    let address = Address::new();
    let running = running(&address).await;
    let timer = address.send_after(SECOND, Msg::Sleep(Duration::ZERO));
    drop(address.send_after(SECOND, Msg::Crash));
    tokio::time::sleep(2 * SECOND).await;
    drop(timer);
    let handled = address.mailbox().handled;
    assert_eq!(handled.keys().copied().collect::<Vec<_>>(), ["Sleep"]);
    running.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_message_is_handled_within_the_span_of_whoever_sent_it() {
    let _guard = tracing_subscriber::registry().set_default();
    let address = Address::new();
    let running = running(&address).await;
    let asked = address.ask(SECOND, Msg::Span).instrument(tracing::info_span!("a change"));
    assert_eq!(asked.await, Ok(Some("a change")));
    running.stop().await.unwrap();
}

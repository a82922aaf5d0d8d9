//! The whole way once: start, ask, crash, restart, escalate, stop.

use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use supervisor::{
    Address, AskError, ChildState, Intensity, Strategy, branch, message_names, render, run, worker,
};

enum Msg {
    Echo(u32, RpcReplyPort<u32>),
    Crash,
}
message_names!(Msg { Echo, Crash });

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
            Msg::Echo(n, reply) => reply.send(n)?,
            Msg::Crash => panic!("asked to"),
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

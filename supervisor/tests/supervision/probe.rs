//! A worker that does what its script says, and writes down what happens to it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ractor::{Actor, ActorProcessingErr, ActorRef};
use supervisor::{Address, Child, message_names, worker};
use tokio::time::Instant;

/// How the start goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Start {
    #[default]
    Well,
    Slow(Duration),
    Error,
    Panic,
    Hang,
    FactoryPanic,
}

/// What ends it by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Death {
    Panic,
    Error,
    Kill,
    Normal,
    PostStartPanic,
    PostStartError,
    /// Not a death: it hangs until it is killed.
    PostStartHang,
}

/// How the stop goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stop {
    #[default]
    Well,
    Slow(Duration),
    /// It blocks its thread: a kill has to wait.
    Blocks(Duration),
    Hang,
    Panic,
    Error,
}

/// The life of one instance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Script {
    pub(crate) start: Start,
    pub(crate) death: Option<(Duration, Death)>,
    pub(crate) stop: Stop,
}

impl Script {
    pub(crate) fn starting(start: Start) -> Self {
        Self { start, ..Self::default() }
    }

    pub(crate) fn dying(after: Duration, death: Death) -> Self {
        Self { death: Some((after, death)), ..Self::default() }
    }

    pub(crate) fn stopping(stop: Stop) -> Self {
        Self { stop, ..Self::default() }
    }
}

/// What happened to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Its factory was called.
    Made,
    /// `pre_start` failed, or will hang.
    StartFails,
    /// `pre_start` returned.
    Started,
    /// It is about to die by itself.
    Dies(Death),
    /// `post_stop` was called.
    Stopping,
    /// Neither its handler nor its state exist any more.
    Gone,
}

/// One line of the log.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Duration,
    pub(crate) child: String,
    pub(crate) what: What,
}

type NextScript = Box<dyn FnMut(&str) -> Script + Send>;

/// What all probes of one test share.
pub(crate) struct World {
    began: Instant,
    log: Mutex<Vec<Entry>>,
    present: Mutex<HashMap<String, u32>>,
    twice: Mutex<Vec<String>>,
    scripts: Mutex<HashMap<String, VecDeque<Script>>>,
    otherwise: Mutex<NextScript>,
}

impl World {
    /// A world in which all goes well unless [`World::script`] says otherwise.
    pub(crate) fn new() -> Arc<Self> {
        Self::with(|_| Script::default())
    }

    /// A world in which `otherwise` writes the scripts.
    pub(crate) fn with(otherwise: impl FnMut(&str) -> Script + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            log: Mutex::default(),
            present: Mutex::default(),
            twice: Mutex::default(),
            scripts: Mutex::default(),
            otherwise: Mutex::new(Box::new(otherwise)),
        })
    }

    /// The next instance of the child lives by this script.
    pub(crate) fn script(&self, child: &str, script: Script) {
        let mut scripts = self.scripts.lock().unwrap();
        scripts.entry(child.to_owned()).or_default().push_back(script);
    }

    /// A worker of this world.
    pub(crate) fn child(self: &Arc<Self>, name: &str) -> Child {
        self.child_at(name, &Address::new())
    }

    /// A worker of this world at an address.
    pub(crate) fn child_at(self: &Arc<Self>, name: &str, address: &Address<Msg>) -> Child {
        let (world, child) = (self.clone(), name.to_owned());
        worker(name, address, move || world.make(&child))
    }

    fn make(self: &Arc<Self>, child: &str) -> (Probe, Arc<Presence>) {
        let scripted = self.scripts.lock().unwrap().get_mut(child).and_then(VecDeque::pop_front);
        let script = scripted.unwrap_or_else(|| (self.otherwise.lock().unwrap())(child));
        self.write(child, What::Made);
        if script.start == Start::FactoryPanic {
            self.write(child, What::StartFails);
            self.write(child, What::Gone);
            unwind(format!("factory of {child}"));
        }
        let mut present = self.present.lock().unwrap();
        let count = present.entry(child.to_owned()).or_default();
        *count += 1;
        if *count > 1 {
            self.twice.lock().unwrap().push(child.to_owned());
        }
        let presence = Arc::new(Presence { world: self.clone(), child: child.to_owned() });
        (Probe { script, presence: presence.clone() }, presence)
    }

    fn write(&self, child: &str, what: What) {
        let at = self.began.elapsed();
        let child = child.to_owned();
        self.log.lock().unwrap().push(Entry { at, child, what });
    }

    /// All that happened so far.
    pub(crate) fn log(&self) -> Vec<Entry> {
        self.log.lock().unwrap().clone()
    }

    /// What happened, without the times, in short: `["a Made", "a Started"]`.
    pub(crate) fn told(&self) -> Vec<String> {
        self.log().iter().map(|e| format!("{} {:?}", e.child, e.what)).collect()
    }

    /// Forgets the log.
    pub(crate) fn forget(&self) {
        self.log.lock().unwrap().clear();
    }

    /// The time in this world.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Children of which an instance exists.
    pub(crate) fn present(&self) -> Vec<String> {
        let present = self.present.lock().unwrap();
        let mut names: Vec<_> = present.iter().filter(|(_, n)| **n > 0).map(|(c, _)| c.clone()).collect();
        names.sort();
        names
    }

    /// Children of which two instances existed at one time.
    pub(crate) fn twice(&self) -> Vec<String> {
        self.twice.lock().unwrap().clone()
    }
}

/// Held by the handler and the state of an instance.
pub(crate) struct Presence {
    world: Arc<World>,
    child: String,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.world.write(&self.child, What::Gone);
        *self.world.present.lock().unwrap().get_mut(&self.child).unwrap() -= 1;
    }
}

pub(crate) enum Msg {
    Die(Death),
}
message_names!(Msg { Die });

pub(crate) struct Probe {
    script: Script,
    presence: Arc<Presence>,
}

impl Probe {
    fn write(&self, what: What) {
        self.presence.world.write(&self.presence.child, what);
    }

    fn name(&self) -> &str {
        &self.presence.child
    }
}

/// A panic that prints nothing: there are many.
fn unwind(text: String) -> ! {
    std::panic::resume_unwind(Box::new(text))
}

impl Actor for Probe {
    type Msg = Msg;
    type State = Arc<Presence>;
    type Arguments = Arc<Presence>;

    async fn pre_start(
        &self,
        _myself: ActorRef<Msg>,
        presence: Arc<Presence>,
    ) -> Result<Arc<Presence>, ActorProcessingErr> {
        match self.script.start {
            Start::Well | Start::FactoryPanic => {}
            Start::Slow(time) => tokio::time::sleep(time).await,
            Start::Error => {
                self.write(What::StartFails);
                return Err(format!("start error of {}", self.name()).into());
            }
            Start::Panic => {
                self.write(What::StartFails);
                unwind(format!("start panic of {}", self.name()));
            }
            Start::Hang => {
                self.write(What::StartFails);
                std::future::pending::<()>().await;
            }
        }
        self.write(What::Started);
        Ok(presence)
    }

    async fn post_start(
        &self,
        myself: ActorRef<Msg>,
        _presence: &mut Arc<Presence>,
    ) -> Result<(), ActorProcessingErr> {
        match self.script.death {
            None => {}
            Some((_, death @ (Death::PostStartPanic | Death::PostStartError))) => {
                self.write(What::Dies(death));
                if death == Death::PostStartPanic {
                    unwind(format!("post_start panic of {}", self.name()));
                }
                return Err(format!("post_start error of {}", self.name()).into());
            }
            Some((_, Death::PostStartHang)) => std::future::pending().await,
            Some((after, death)) => {
                let _timer = myself.send_after(after, move || Msg::Die(death));
            }
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<Msg>,
        Msg::Die(death): Msg,
        _presence: &mut Arc<Presence>,
    ) -> Result<(), ActorProcessingErr> {
        self.write(What::Dies(death));
        match death {
            Death::Error => return Err(format!("error of {}", self.name()).into()),
            Death::Kill => myself.kill(),
            Death::Normal => myself.stop(None),
            _ => unwind(format!("panic of {}", self.name())),
        }
        Ok(())
    }

    async fn post_stop(
        &self,
        _myself: ActorRef<Msg>,
        _presence: &mut Arc<Presence>,
    ) -> Result<(), ActorProcessingErr> {
        self.write(What::Stopping);
        match self.script.stop {
            Stop::Well => Ok(()),
            Stop::Slow(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Stop::Blocks(time) => {
                std::thread::sleep(time);
                Ok(())
            }
            Stop::Hang => std::future::pending().await,
            Stop::Panic => unwind(format!("stop panic of {}", self.name())),
            Stop::Error => Err(format!("stop error of {}", self.name()).into()),
        }
    }
}

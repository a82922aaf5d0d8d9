//! Supervision as in Erlang/OTP, on `ractor` actors.
//!
//! A tree is a value ([`Child`], made by [`branch`], [`worker`] and [`dynamic`]): it is declared in one
//! readable file per process, printed with [`render`], started with [`run`] and read while it lives
//! through [`LiveTree`]. Called by the `tree.rs` of each process. Refuses to know anything of
//! Kubernetes, AWS or HTTP: it knows names, policies and how actors end.
//!
//! | file | owns |
//! |---|---|
//! | `spec` | the tree as data |
//! | `machine` | the decisions: who starts, who stops, who restarts when; pure |
//! | `supervisor` | the one supervising actor: events in, the machine's steps out |
//! | `keeper` | the life of one instance of one child, from start to awaited end |
//! | `census` | knowing that nothing of a subtree is left |
//! | `measured` | the wrapper that measures a worker's messages |
//! | `address` | stable, bounded mailbox addresses |
//! | `meter` | what is measured of a mailbox |
//! | `live` | the tree as it stands |
//! | `running` | the root |
//! | `drill` | faults on purpose |

mod address;
mod cause;
mod census;
mod drill;
mod keeper;
mod live;
mod machine;
mod measured;
mod meter;
mod running;
mod spec;
mod supervisor;

pub use address::{Address, AskError, MessageName, Refused};
pub use cause::Cause;
pub use drill::{Drill, DrillError, Fault};
pub use live::{ChildState, LiveTree, NodeState};
pub use meter::{Handled, MailboxState};
pub use running::{Running, StartError, Stopped, page, run};
pub use spec::{
    Backoff, Child, Gate, Intensity, Restart, Shutdown, Strategy, branch, dynamic, render, worker,
};

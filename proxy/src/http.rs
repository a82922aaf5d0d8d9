//! HTTP: from the bytes of a request to the bytes of its response.
//!
//! Every request of every protocol goes through [`validate`], is matched by the table, edited by
//! [`filters`], sent upstream and answered; [`exchange`] says at each step what is allowed next, and
//! every answer of our own comes from [`respond`].

pub mod attempts;
pub mod authorise;
pub mod body;
pub mod exchange;
pub mod filters;
pub mod h1;
pub mod h2;
pub mod head;
pub mod lines;
pub mod mirror;
pub mod pace;
pub mod plan;
pub mod render;
pub mod respond;
pub mod retry;
pub mod session;
pub mod standing;
pub mod timers;
pub mod trailers;
pub mod tunnel;
pub mod validate;

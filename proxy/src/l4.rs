//! What is not HTTP: from a connection, or the datagrams, of a client to an endpoint.
//!
//! Called by the worker's connection where the port, or the listener that the server name chose, knows
//! nothing of HTTP, and by the listeners of datagrams. A connection is given to one endpoint and stays
//! there.

pub mod datagrams;
pub mod hello;
pub mod replay;
pub mod streams;

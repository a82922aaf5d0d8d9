//! Portreeve's real processes beside a real cluster, or installed on it, and the means to judge them: what the suites
//! `tests/cluster` and `tests/chart` and the command `conformance` are written in.
//!
//! [`testbed`] brings everything up, [`stage`] lets tests share it, [`fleet`] starts, stops and kills Portreeve's
//! processes, [`installation`] installs the chart and [`site`] is what it is installed on, [`traffic`] sends requests as
//! clients would and counts what comes back, [`datagrams`] does the same by UDP, [`origin`] answers at endpoints that are
//! no pods, [`manifests`] holds what is applied, [`pool`] is the network of an address pool, [`names`] tells proxies where
//! hosts outside the cluster are, [`steady`] tells what controllers write. Nothing here knows how Portreeve works inside: it
//! is used by its command line, its chart, its ports and the Kubernetes API alone.

pub mod datagrams;
pub mod fleet;
pub mod installation;
pub mod manifests;
pub mod names;
pub mod origin;
pub mod pool;
pub mod site;
pub mod stage;
pub mod steady;
pub mod testbed;
pub mod traffic;
pub mod wait;

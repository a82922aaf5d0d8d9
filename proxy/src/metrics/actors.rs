//! The live tree as metrics: restarts, mailboxes, and what messages cost.

use std::fmt::{self, Write};

use supervisor::NodeState;

use super::text::{Label, Seconds, family};

/// Renders the tree's metrics in Prometheus' text format.
pub fn render(tree: &NodeState) -> String {
    let mut nodes = Vec::new();
    collect(String::new(), tree, &mut nodes);
    let mut out = String::new();
    // Writing to a String can't fail.
    let _ = restarts(&mut out, &nodes)
        .and_then(|()| mailboxes(&mut out, &nodes))
        .and_then(|()| messages(&mut out, &nodes));
    out
}

/// A node with its path below the root.
type Named<'a> = (String, &'a NodeState);

fn collect<'a>(above: String, node: &'a NodeState, nodes: &mut Vec<Named<'a>>) {
    for child in &node.children {
        let path = if above.is_empty() { child.name.to_string() } else { format!("{above}/{}", child.name) };
        nodes.push((path.clone(), child));
        collect(path, child, nodes);
    }
}

fn restarts(out: &mut String, nodes: &[Named<'_>]) -> fmt::Result {
    const NAME: &str = "portreeve_actor_restarts_total";
    family(out, NAME, "counter", "Restarts of an actor or branch, by itself or with its group.")?;
    nodes
        .iter()
        .try_for_each(|(path, node)| writeln!(out, "{NAME}{{actor=\"{}\"}} {}", Label(path), node.restarts))
}

fn mailboxes(out: &mut String, nodes: &[Named<'_>]) -> fmt::Result {
    const DEPTH: &str = "portreeve_mailbox_depth";
    const OLDEST: &str = "portreeve_mailbox_oldest_seconds";
    let boxes = || nodes.iter().filter_map(|(path, node)| Some((Label(path), node.mailbox.as_ref()?)));
    family(out, DEPTH, "gauge", "Messages that wait.")?;
    for (actor, mailbox) in boxes() {
        writeln!(out, "{DEPTH}{{actor=\"{actor}\"}} {}", mailbox.depth)?;
    }
    family(out, OLDEST, "gauge", "For how long the oldest of them has waited.")?;
    for (actor, mailbox) in boxes() {
        let oldest = Seconds(mailbox.oldest_ms.unwrap_or(0).saturating_mul(1000));
        writeln!(out, "{OLDEST}{{actor=\"{actor}\"}} {oldest}")?;
    }
    Ok(())
}

fn messages(out: &mut String, nodes: &[Named<'_>]) -> fmt::Result {
    const COUNT: &str = "portreeve_messages_total";
    const TIME: &str = "portreeve_message_seconds_total";
    let all = || {
        nodes.iter().flat_map(|(path, node)| {
            let handled = node.mailbox.iter().flat_map(|mailbox| &mailbox.handled);
            handled.map(move |(message, handled)| (Label(path), message, handled))
        })
    };
    family(out, COUNT, "counter", "Messages handled, by their kind.")?;
    for (actor, message, handled) in all() {
        writeln!(out, "{COUNT}{{actor=\"{actor}\",message=\"{message}\"}} {}", handled.count)?;
    }
    family(out, TIME, "counter", "Time spent on them.")?;
    for (actor, message, handled) in all() {
        let time = Seconds(handled.total_us);
        writeln!(out, "{TIME}{{actor=\"{actor}\",message=\"{message}\"}} {time}")?;
    }
    Ok(())
}

//! The `portreeve` command: parses arguments, picks a tree, runs it.
fn main() {}

//! The `pushward` command.

fn main() {}

//! The Palisade server and its command line.
fn main() {}

//! Connections: the listener, and the clients behind them.

pub mod client;
pub mod serve;

//! One binary for all tests through the front door, so that it is linked once.

#![expect(unreachable_pub, reason = "a test binary has no outside to be reached from")]

mod app;
mod auditing;
mod catalogues;
mod cors;
mod endings;
mod every_route;
mod journeys;
mod refreshing;
mod signing_in;

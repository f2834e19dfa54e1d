//! One binary for all tests through the front door, so that it is linked once.

mod app;
mod cors;
mod journeys;

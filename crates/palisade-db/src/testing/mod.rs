//! Throw-away databases for tests, behind the feature `testing`.
//!
//! What is started here ends with the test process, even when that is killed.

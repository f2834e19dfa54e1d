//! What operators and developers look at.

pub mod reference;
pub mod system;

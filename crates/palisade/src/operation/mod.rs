//! What operators and developers look at.

pub mod audit;
pub mod reference;
pub mod system;

//! The run.

pub mod estimate;
pub mod model;
pub mod text;

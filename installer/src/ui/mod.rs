//! The terminal installer. The model is a fold over keys and results of background work, the view a pure function of the
//! model; neither touches the machine. It fills an `InstallConfig`, shows the plan that `plan/` computed, and hands both
//! to the engine.

pub mod frame;
pub mod keymap;
pub mod run;
pub mod terminal;
pub mod theme;

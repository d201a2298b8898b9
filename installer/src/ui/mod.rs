//! The terminal installer. The model is a fold over keys and results of background work, the view a pure function of the
//! model; neither touches the machine. It fills an `InstallConfig`, shows the plan that `plan/` computed, and hands both
//! to the engine, whose pages are in `run/`.

pub mod answers;
pub mod dialog;
mod dialog_view;
pub mod field;
pub mod frame;
pub mod keymap;
pub mod machine;
pub mod model;
pub mod network_answers;
pub mod plain;
pub mod question_answers;
pub mod run;
pub mod screen;
pub mod secret;
pub mod session;
pub mod sheet;
pub mod task;
pub mod terminal;
pub mod theme;
pub mod update;
pub mod view;

pub use run::Start;

#[cfg(test)]
mod tests;

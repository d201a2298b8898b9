//! Cofferdam's installer: configuration, facts, checks, the plan, the engine that runs it and its steps.
//! The `cofferdam` binary is a thin command line over this.

pub mod check;
pub mod cli;
pub mod config;
pub mod disk;
pub mod engine;
pub mod facts;
pub mod headless;
pub mod host;
pub mod layout;
pub mod live;
pub mod network;
pub mod passphrase;
pub mod plan;
pub mod prepare;
pub mod request;
pub mod site;
pub mod step;
pub mod support;
pub mod ui;
pub mod upgrade;

//! The commented example of `install.yaml`, as `cofferdam config example` prints it.

/// A complete file with comments; it passes the rules (a test shows it).
pub const EXAMPLE: &str = include_str!("example.yaml");
